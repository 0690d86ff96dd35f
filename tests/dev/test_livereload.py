"""The server for livereload: what pages are told, when, and what anybody else gets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from sockmgr.dev.livereload import CONNECTIONS_MAX, HEAD_MAX, LiveReload

Test = Callable[[LiveReload], Awaitable[None]]


@pytest.fixture
def run() -> Iterator[Callable[[Test], None]]:
    server = LiveReload()
    server.listen()

    def run(test: Test) -> None:
        async def main() -> None:
            server.attach(asyncio.get_running_loop())
            try:
                async with asyncio.timeout(30):
                    await test(server)
            finally:
                server.close()

        asyncio.run(main(), debug=True)

    yield run
    server.close()


Run = Callable[[Test], None]


class Connection:
    """One client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    async def send(self, request: bytes) -> None:
        self._writer.write(request)
        await self._writer.drain()

    async def rest(self) -> str:
        """Read to the end."""
        return (await self.reader.read()).decode()

    async def newer(self) -> bool:
        """Read the next of the stream, behind the head; tell whether it is an event."""
        return b"data: newer" in await self.reader.readuntil(b"\n\n")

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@asynccontextmanager
async def connected(
    server: LiveReload, path: str = "", method: str = "GET"
) -> AsyncIterator[Connection]:
    """Connect, and ask for `path` if there is one."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port(server)))
    try:
        if path:
            request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://a:8000\r\n\r\n"
            await connection.send(request.encode())
        yield connection
    finally:
        await connection.close()


def port(server: LiveReload) -> int:
    return int(server.script.rpartition(":")[2].partition("/")[0])


def test_the_script_can_be_loaded_by_a_page_of_any_origin(run: Run) -> None:
    async def test(server: LiveReload) -> None:
        assert server.tag == f'<script async src="{server.script}"></script>'
        async with connected(server, "/livereload.js?x=1") as page:
            head, _, body = (await page.rest()).partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK")
        assert "Content-Type: text/javascript" in head
        assert "Access-Control-Allow-Origin: *" in head
        assert "Cross-Origin-Resource-Policy: cross-origin" in head
        assert "EventSource" in body

    run(test)


def test_a_page_is_told_when_newer_code_serves_alone(run: Run) -> None:
    async def test(server: LiveReload) -> None:
        server.serves("web", 1, alone=True)
        async with connected(server, "/events?age=0") as page:
            assert not await page.newer()
            server.serves("web", 1, alone=True)  # nothing new
            server.serves("web", 2, alone=False)  # a kept connection may lead to the old
            async with connected(server, "/events?age=0") as late:
                assert not await late.newer()
                server.serves("web", 2, alone=True)
                assert await page.newer()
                assert await late.newer()

    run(test)


def test_a_page_that_is_older_than_the_code_is_told_at_once(run: Run) -> None:
    async def test(server: LiveReload) -> None:
        server.serves("web", 1, alone=True)
        async with connected(server, "/events?age=999999999999") as old:
            assert await old.newer()
        for fresh in ("/events?age=0", "/events"):
            async with connected(server, fresh) as page:
                assert not await page.newer()

    run(test)


def test_old_code_that_does_not_go_is_waited_for_only_so_long(run: Run) -> None:
    async def test(server: LiveReload) -> None:
        async with connected(server, "/events?age=0") as page:
            assert not await page.newer()
            server.serves("web", 2, alone=False)
            assert await page.newer()

    run(test)


@pytest.mark.parametrize(
    ("path", "method"),
    [("/", "GET"), ("/../livereload.py", "GET"), ("/events", "POST"), ("/events?age=x", "GET")],
)
def test_there_is_nothing_else(run: Run, path: str, method: str) -> None:
    async def test(server: LiveReload) -> None:
        async with connected(server, path, method) as page:
            assert (await page.rest()).startswith("HTTP/1.1 404 ")

    run(test)


@pytest.mark.parametrize("garbage", [b"\r\n\r\n", b"\0\xff\r\n\r\n", b"x" * (HEAD_MAX + 1)])
def test_garbage_harms_nobody_else(run: Run, garbage: bytes) -> None:
    async def test(server: LiveReload) -> None:
        async with connected(server, "/events") as page, connected(server) as other:
            await other.send(garbage)
            answer = await other.reader.read()
            assert not answer or answer.startswith(b"HTTP/1.1 404 ")
            assert not await page.newer()
            server.serves("web", 2, alone=True)
            assert await page.newer()

    run(test)


def test_silent_clients_keep_nobody_from_an_answer(run: Run) -> None:
    async def test(server: LiveReload) -> None:
        async with AsyncExitStack() as silent:
            for _ in range(CONNECTIONS_MAX + 10):
                await silent.enter_async_context(connected(server))
            async with connected(server, "/events") as page:
                assert not await page.newer()

    run(test)


def test_a_port_that_another_has_is_no_trouble() -> None:
    servers = [LiveReload() for _ in range(3)]
    assert len({server.listen() for server in servers}) == 3
    for server in servers:
        server.close()
        assert server.script == ""


def test_pages_can_come_back_after_it_was_switched_off(run: Run) -> None:
    async def test(server: LiveReload) -> None:
        async with connected(server, "/events") as page:
            assert not await page.newer()
            server.close()
            assert await page.rest() == ""
        server.listen()
        async with connected(server, "/events") as page:
            assert not await page.newer()

    run(test)


def test_other_machines_cannot_connect(run: Run) -> None:
    async def test(server: LiveReload) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect(("192.0.2.1", 9))
            except OSError:
                pytest.skip("this machine has no address but loopback")
            address = sock.getsockname()[0]
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address, port(server))

    run(test)
