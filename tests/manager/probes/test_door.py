"""A door lets in whom it is for, and nobody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from sockmgr.manager.probes.door import MOST, Door
from tests.manager.probes.servers import saying, serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ASK = b"GET / HTTP/1.1\r\n\r\n"
CLIENT = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
sock = socket.socket()
sock.settimeout(30)
sock.connect(("127.0.0.1", int(sys.argv[1])))
try:
    sock.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
    print(len(sock.recv(100)))
except ConnectionError:
    print(0)
"""


def port(door: Door) -> int:
    return int(door.url.rpartition(":")[2])


async def answer(door: Door, *, ends: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port(door))
    try:
        writer.write(ASK)
        if ends:
            writer.write_eof()
        return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


def test_a_process_of_its_users_is_answered_by_the_worker_though_it_ends_its_half_at_once() -> None:
    async def scenario() -> None:
        async with serving(saying(OK)) as reach:
            door = Door(reach, {os.geteuid()}, tls=False)
            assert door.url.startswith("http://127.0.0.1:")
            assert await asyncio.gather(*(answer(door) for _ in range(8))) == [OK] * 8
            door.close()
            with pytest.raises(ConnectionRefusedError):
                await answer(door)

    asyncio.run(scenario())


def test_a_process_of_another_user_is_sent_away_unheard() -> None:
    async def scenario(users: set[int], user: int) -> str:
        async with serving(saying(OK)) as reach:
            door = Door(reach, users, tls=True)
            assert door.url.startswith("https://")
            argv = [sys.executable, "-S", "-c", CLIENT, str(port(door)), str(user)]
            ask = subprocess.run
            done = await asyncio.to_thread(ask, argv, capture_output=True, text=True, check=True)
            door.close()
            return done.stdout.strip()

    own = os.geteuid()
    assert asyncio.run(scenario({own}, own)) == str(len(OK))
    assert asyncio.run(scenario({own + 1}, own)) == "0"
    if own == 0:
        assert asyncio.run(scenario({0, 65533}, 65534)) == "0"
        assert asyncio.run(scenario({0, 65534}, 65534)) == str(len(OK))


def test_only_so_many_are_let_in_at_a_time_and_closing_sends_all_away() -> None:
    async def scenario() -> None:
        async with serving(saying(OK, stays=True)) as reach:
            door = Door(reach, {os.geteuid()}, tls=False)
            inside = [asyncio.create_task(answer(door, ends=False)) for _ in range(MOST)]
            while len(door._visits) < MOST:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
            assert await answer(door) == b""
            door.close()
            assert len(await asyncio.gather(*inside)) == MOST

    asyncio.run(scenario())
