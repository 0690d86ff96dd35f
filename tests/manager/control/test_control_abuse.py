"""The control socket is unmoved by clients that mean harm, or are broken."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sockmgr.config.manager_keys import Control
from sockmgr.manager.control.connection import Limits
from sockmgr.manager.control.server import ControlServer
from tests.helpers.fake_manager import FakeManager, served
from tests.helpers.raw_client import MANAGER, SERVICE, Raw, assert_serves, let_in, run, until
from tests.manager.control.garbage import GARBAGE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.sock"


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_hung_up_on_and_the_next_client_is_answered(
    path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager()):
            client = await Raw.connect(path)
            client.writer.write(garbage)
            assert await client.is_closed()
            await client.close()
            await assert_serves(path)

    run(scenario)
    assert not caplog.records, "it is no bug of ours, and no human is needed"


def test_parameters_that_are_no_text_are_turned_down(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager()):
            client = await Raw.connect(path)
            client.writer.write(
                b'{"method":"io.sockmgr.Manager.Reload","parameters":{"services":["\xff"]}}\0'
            )
            assert (await client.reply())["error"] == f"{SERVICE}.InvalidParameter"
            await client.close()

    run(scenario)


def test_64_mib_without_an_end_are_not_taken_and_hold_up_nobody(path: Path) -> None:
    async def flood() -> int:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, str(path))
            piece, sent = b"x" * 2**16, 0
            try:
                while sent < 64 * 2**20:
                    await loop.sock_sendall(sock, piece)
                    sent += len(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass
            return sent

    async def scenario() -> None:
        async with served(path, FakeManager()):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            floods = asyncio.gather(*(flood() for _ in range(8)))
            slowest = 0.0
            while not floods.done():
                began = time.monotonic()
                await assert_serves(path)
                slowest = max(slowest, time.monotonic() - began)
            assert max(await floods) < 2**20
            assert slowest < 1.0
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024

    run(scenario)


def test_of_1000_connections_the_last_are_told_and_hung_up_on(path: Path) -> None:
    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))  # blocking: it waits for room in the backlog
        return sock

    async def scenario() -> None:
        async with served(path, FakeManager(), Limits(clients=7)):
            # A call first, so that these are known to be the ones that are in.
            first = [await Raw.connect(path) for _ in range(7)]
            for client in first:
                assert "parameters" in await client.ask(f"{SERVICE}.GetInfo")
            crowd = await asyncio.gather(*(asyncio.to_thread(connect) for _ in range(1000)))
            for sock in crowd:
                client = Raw(*await asyncio.open_unix_connection(sock=sock))
                reply = await client.reply()
                assert reply["error"] == f"{MANAGER}.Refused"
                assert "already has 7 clients" in reply["parameters"]["what"]
                assert await client.is_closed()
                await client.close()
            for client in first:
                assert "parameters" in await client.ask(f"{SERVICE}.GetInfo")
                await client.close()
            await (await let_in(path)).close()

    run(scenario)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_whatever_those_do_who_are_let_in_by_a_group_root_finds_a_place(path: Path) -> None:
    program = (
        "import os, socket, sys\n"
        "os.chdir(sys.argv[1]); os.setgid(65534); os.setuid(65534)\n"
        "socks = [socket.socket(socket.AF_UNIX) for _ in range(9)]\n"
        "for sock in socks: sock.connect('shop.sock')\n"
        "print(socks[-1].recv(4096), flush=True)\n"
        "sys.stdin.read()\n"
    )

    async def scenario() -> None:
        server = ControlServer(path, FakeManager(), limits=Limits(clients=8))
        await server.open()
        server.admit(Control(group="65534"))
        path.parent.chmod(0o711)
        crowd = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", program, str(path.parent),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert crowd.stdout
        assert b"already has 4 clients" in await crowd.stdout.readline()
        client = await Raw.connect(path)
        assert "parameters" in await client.ask(f"{SERVICE}.GetInfo")
        await client.close()
        await crowd.communicate(b"")
        await server.close()

    run(scenario)


def test_a_client_that_never_reads_is_dropped_and_holds_up_nobody(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.workers = 50_000
        async with served(path, manager, Limits(write_timeout=0.5)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
                deaf.connect(str(path))
                call = {"method": f"{MANAGER}.Status"}
                deaf.sendall((json.dumps(call).encode() + b"\0") * 100)
                client = await Raw.connect(path)
                for _ in range(20):
                    assert "parameters" in await client.ask(f"{SERVICE}.GetInfo")
                await client.close()
                deaf.setblocking(False)
                loop, got = asyncio.get_running_loop(), 0
                await until_hung_up(deaf)
                try:
                    while data := await loop.sock_recv(deaf, 2**20):
                        got += len(data)
                except ConnectionResetError:  # of its 100 calls, most were never read
                    pass
                assert 0 < got < 2**20

    run(scenario)


async def until_hung_up(sock: socket.socket) -> None:
    """Wait until the other end is closed, and read nothing."""
    poll = select.poll()
    poll.register(sock, 0)
    await until(lambda: poll.poll(0))


def test_a_client_that_does_not_read_the_news_gets_the_verdict_and_no_backlog_of_news(
    path: Path,
) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.news = manager.news * 20_000
        async with served(path, manager):
            client = await Raw.connect(path)
            client.call(f"{MANAGER}.Reload", more=True)
            await manager.ended.acquire()
            replies = [await client.reply()]
            while "continues" in replies[-1]:
                replies.append(await client.reply())
            assert "verdicts" in replies[-1]["parameters"]
            assert len(replies) < 20_000
            await client.close()

    run(scenario)


@pytest.mark.parametrize("sent", [b"", b'{"method":"io.sockmgr.Mana'])
def test_a_client_that_falls_silent_is_hung_up_on(path: Path, sent: bytes) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager(), Limits(message_timeout=0.3)):
            began = time.monotonic()
            client = await Raw.connect(path)
            client.writer.write(sent)
            assert await client.is_closed()
            assert time.monotonic() - began >= 0.25
            await client.close()

    run(scenario)


def test_a_client_that_drips_bytes_has_no_more_time_than_others(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager(), Limits(message_timeout=0.5)):
            client = await Raw.connect(path)
            hung_up = asyncio.ensure_future(client.is_closed())
            tasks = len(asyncio.all_tasks())
            while not hung_up.done():
                client.writer.write(b"x")
                await asyncio.sleep(0.01)
                assert len(asyncio.all_tasks()) <= tasks + 1
            assert await hung_up
            await client.close()

    run(scenario)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_even_where_the_mode_lets_it_in() -> None:
    as_nobody = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    reply = b""
    try:
        sock.sendall(b'{"method":"io.sockmgr.Manager.Stop"}\\0')
    except BrokenPipeError:
        pass
    try:
        while data := sock.recv(4096):
            reply += data
    except ConnectionResetError:
        pass
sys.stdout.buffer.write(reply)
"""
    place = Path(tempfile.mkdtemp(prefix="sockmgr-test-"))
    path = place / "shop.sock"

    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager):
            place.chmod(0o755)
            command = [sys.executable, "-c", as_nobody, str(path)]
            shut = await asyncio.to_thread(subprocess.run, command, capture_output=True)
            assert b"PermissionError" in shut.stderr
            path.chmod(0o666)
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True)
            assert done.returncode == 0, done.stderr
            reply = json.loads(done.stdout.rstrip(b"\0"))
            assert reply == {"error": f"{SERVICE}.PermissionDenied", "parameters": {}}
            assert not manager.stopped
            await assert_serves(path)

    try:
        run(scenario)
    finally:
        shutil.rmtree(place)


def test_a_manager_without_a_free_descriptor_makes_clients_wait_and_does_not_spin(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager(), Limits(accept_delay=0.2)):
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with socket.socket(socket.AF_UNIX) as sock:
                resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, hard))
                try:
                    sock.connect(str(path))
                    await until(lambda: caplog.records)
                    began = time.process_time()
                    await asyncio.sleep(1.0)
                    assert time.process_time() - began < 0.3
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                client = Raw(*await asyncio.open_unix_connection(sock=sock))
                assert "parameters" in await client.ask(f"{MANAGER}.Status")
                await client.close()
            assert 2 <= len(caplog.records) <= 10

    run(scenario)
