"""A program that answers on inherited listeners that the code is broken: `stand_in.py PAGE`.

`sockmgr dev` starts and stops it as a worker, in place of a worker. It uses nothing of sockmgr and
only the standard library, so that it starts at once under any Python. PAGE is a file that page.py
made; it is read again for each request. Source code is shown only to our own user (or root) on this
machine, and only if the request came under a name of this machine and through no proxy, unless
`--to-everyone` is given.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import struct
import sys
import time
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


class Client:
    """One connection: reads the head of a request, writes one answer, and closes."""

    def __init__(self, sock: socket.socket, page: str, to_everyone: bool) -> None:
        sock.setblocking(False)
        self.sock, self._page = sock, page
        self._to_everyone = to_everyone
        self._head = b""
        self._answer: memoryview | None = None
        self.ends_at = time.monotonic() + PATIENCE

    @property
    def waits(self) -> bool:
        """Whether the client does not have the whole answer yet."""
        return self._answer is None or bool(self._answer)

    @property
    def events(self) -> int:
        return selectors.EVENT_WRITE if self._answer else selectors.EVENT_READ

    def advance(self) -> bool:
        """Read or write as much as possible; return False when the connection is to be closed."""
        try:
            if self._answer:
                self._answer = self._answer[self.sock.send(self._answer) :]
                return bool(self._answer) or self._hang_up()
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:  # the client is gone
            return False
        if not data or self._answer is not None:  # the body of a request is dropped
            return bool(data)
        self._head += data
        if b"\r\n\r\n" in self._head or len(self._head) > HEAD_MAX:
            self.ends_at = time.monotonic() + PATIENCE
            self._answer = memoryview(self._respond())
            return bool(self._answer)
        return True

    def _hang_up(self) -> bool:
        """Shut down our side only: close(2) with unread data resets the connection.

        A reset would discard the part of the answer that the client has not read (tcp(7)).
        """
        self.sock.shutdown(socket.SHUT_WR)
        return True

    def _respond(self) -> bytes:
        if not self._head.startswith(METHODS):
            return b""  # not HTTP: no answer is better than a wrong one
        page = json.loads(Path(self._page).read_bytes())
        sees_all = self._to_everyone or (_is_ours(self.sock) and _is_direct(self.sock, self._head))
        if not sees_all:
            page["html"] = page["text"] = ELSEWHERE
        wants_html = b"text/html" in self._head.lower() and sees_all
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
        head = "\r\n".join([*headers, "", ""]).encode()
        return head if self._head.startswith(b"HEAD ") else head + body


class StandIn:
    """Serves all listeners and connections until a signal comes."""

    def __init__(self, listeners: list[socket.socket], page: str, to_everyone: bool) -> None:
        self._listeners, self._page, self._to_everyone = listeners, page, to_everyone
        self._selector = selectors.DefaultSelector()
        self._clients: set[Client] = set()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())

    def run(self) -> None:
        """Answer until a signal comes, and then those connected clients that have no answer."""
        for sock in (self._woken, *self._listeners):
            self._selector.register(sock, selectors.EVENT_READ)
        stopping = False
        while not stopping or any(client.waits for client in self._clients):
            timeout = PATIENCE if self._clients else None
            for key, _ in self._selector.select(timeout):
                if isinstance(key.data, Client):
                    self._serve(key.data)
                elif key.fileobj is self._woken:
                    self._woken.recv(100)
                    stopping = True
                elif isinstance(key.fileobj, socket.socket) and not stopping:
                    self._accept(key.fileobj)
            for client in [c for c in self._clients if c.ends_at < time.monotonic()]:
                self._drop(client)

    def _accept(self, listener: socket.socket) -> None:
        if len(self._clients) >= CONNECTIONS_MAX:
            self._drop(min(self._clients, key=lambda client: client.ends_at))
        try:
            sock, _ = listener.accept()
            client = Client(sock, self._page, self._to_everyone)
        except OSError:  # another process accepted it, or the client is gone again
            return
        self._clients.add(client)
        self._selector.register(sock, client.events, client)

    def _serve(self, client: Client) -> None:
        if client.advance():
            self._selector.modify(client.sock, client.events, client)
        else:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        self._selector.unregister(client.sock)
        self._clients.discard(client)
        client.sock.close()


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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # it wakes the loop
    fds = range(FIRST_FD, FIRST_FD + int(os.environ["LISTEN_FDS"]))
    listeners = [socket.socket(fileno=fd) for fd in fds]
    StandIn(listeners, page, "--to-everyone" in options).run()


if __name__ == "__main__":
    main()
