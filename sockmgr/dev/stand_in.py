"""A program that answers on inherited listeners that the code is broken: `stand_in.py PAGE`.

`sockmgr dev` starts and stops it as a worker, in place of a worker. It uses nothing of sockmgr and
only the standard library, so that it starts at once under any Python. PAGE is a file that page.py
made; it is read again for each request. Source code is shown only to our own user (or root) on this
machine, and only if the request came under a name of this machine and through no proxy, unless
`--to-everyone` is given.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import struct
import sys
from pathlib import Path

FIRST_FD = 3
CONNECTIONS_MAX = 100
HEAD_MAX = 64 << 10
PATIENCE = 5.0  # seconds in which a client must send its request, and again take its answer
ELSEWHERE = (
    "The code is broken. Its error is shown on its own machine only, to its own user, at localhost "
    "and without a proxy; with dev.error_page = true to everyone.\n"
)
# Only these names: evil.example can be made to resolve to 127.0.0.1 (DNS rebinding), and then a
# browser lets its pages read our answers.
_OWN_NAME = re.compile(rb"(?:[\w.-]+\.)?localhost\.?|127\.\d+\.\d+\.\d+|\[::1\]", re.IGNORECASE)
_FORWARDED = re.compile(rb"forwarded|x-forwarded-.*|x-real-ip|via", re.IGNORECASE)
METHODS = (
    b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"TRACE "
)  # fmt: skip


class StandIn:
    """Answers on all listeners until a signal comes, and then those clients that have no answer."""

    def __init__(self, page: str, *, to_everyone: bool) -> None:
        self._page, self._to_everyone = page, to_everyone
        self._stopped = asyncio.Event()
        self._waiting: dict[socket.socket, asyncio.Task[None]] = {}  # for an answer, oldest first

    async def run(self, listeners: list[socket.socket]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopped.set)
        accepting = [asyncio.create_task(self._accept(listener)) for listener in listeners]
        await self._stopped.wait()
        for task in accepting:
            task.cancel()
        if self._waiting:
            await asyncio.wait(self._waiting.values())

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError:  # the client is gone again
                continue
            if len(self._waiting) >= CONNECTIONS_MAX:
                self._waiting.pop(next(iter(self._waiting))).cancel()
            self._waiting[sock] = asyncio.create_task(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        """Read the head of a request, write one answer, and close."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=HEAD_MAX)
        writer.transport.set_write_buffer_limits(0)  # drain() returns when all is sent
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(METHODS):
                return  # not HTTP: no answer is better than a wrong one
            async with asyncio.timeout(PATIENCE):
                writer.write(self._answer(sock, head))
                # Only our side, and what comes is dropped: close(2) with unread data would reset
                # the connection, and discard what the client has not read (tcp(7)).
                writer.write_eof()
                await writer.drain()
                self._waiting.pop(sock, None)
                while not self._stopped.is_set() and await reader.read(HEAD_MAX):
                    pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client is gone, too slow, or sends what is no request
        finally:
            self._waiting.pop(sock, None)
            writer.close()

    def _answer(self, sock: socket.socket, head: bytes) -> bytes:
        page = json.loads(Path(self._page).read_bytes())
        sees_all = self._to_everyone or (_is_ours(sock) and _is_direct(sock, head))
        if not sees_all:
            page["html"] = page["text"] = ELSEWHERE
        wants_html = b"text/html" in head.lower() and sees_all
        body = page["html" if wants_html else "text"].encode(errors="replace")
        kind = "text/html" if wants_html else "text/plain"
        headers = (
            "HTTP/1.1 503 Service Unavailable",
            f"Content-Type: {kind}; charset=utf-8",
            f"Content-Length: {len(body)}",
            f"{page['header']}: {page['id']}",
            "Cache-Control: no-store",
            "Retry-After: 1",
            "X-Content-Type-Options: nosniff",
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
            "Connection: close",
        )
        answer = "\r\n".join([*headers, "", ""]).encode()
        return answer if head.startswith(b"HEAD ") else answer + body


def _is_direct(sock: socket.socket, head: bytes) -> bool:
    """Return whether a request came through no proxy, and under a name of this machine."""
    fields = [line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line]
    if any(_FORWARDED.fullmatch(name.strip()) for name, _ in fields):
        return False
    hosts = [value.strip() for name, value in fields if name.lower() == b"host"]
    if sock.family == socket.AF_UNIX:  # no browser can be made to connect to it
        return True
    return all(_OWN_NAME.fullmatch(re.sub(rb":\d*$", b"", host)) for host in hosts)


def _is_ours(sock: socket.socket) -> bool:
    """Return whether the client is on this machine, and belongs to our user or root."""
    ours = {0, os.geteuid()}
    if sock.family == socket.AF_UNIX:
        packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", packed)[1] in ours  # pid, uid, gid: unix(7)
    try:
        peer, own = sock.getpeername(), sock.getsockname()
    except OSError:  # the client is gone
        return False
    host = peer[0].removeprefix("::ffff:")
    owners = _owners(peer[1], own[1])
    return (host.startswith("127.") or host == "::1") and bool(owners) and owners <= ours


def _owners(port: int, to_port: int) -> set[int]:
    """Return the uids of this machine's sockets that are connected from `port` to `to_port`."""
    owners = set()
    for table in filter(Path.exists, (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))):
        for line in table.read_text("ascii").splitlines()[1:]:
            # proc(5): sl local_address rem_address st tx:rx tr:when retrnsmt uid ...
            _, local, remote, _, _, _, _, uid, *_ = line.split()
            if (local[-5:], remote[-5:]) == (f":{port:04X}", f":{to_port:04X}"):
                owners.add(int(uid))
    return owners


def main() -> None:
    """Serve the listeners that LISTEN_FDS counts."""
    options, page = sys.argv[1:-1], sys.argv[-1]
    fds = range(FIRST_FD, FIRST_FD + int(os.environ["LISTEN_FDS"]))
    listeners = [socket.socket(fileno=fd) for fd in fds]
    for listener in listeners:
        listener.setblocking(False)
    asyncio.run(StandIn(page, to_everyone="--to-everyone" in options).run(listeners))


if __name__ == "__main__":
    main()
