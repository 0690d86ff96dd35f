"""A server of the standard library alone: a blocking accept loop on the socket passed as fd 3.

One request a connection, one connection at a time. TERM ends it once the request in hand is
answered; what it has not accepted stays in the kernel's queue for its siblings.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from urllib.parse import parse_qs, urlsplit

from version import VERSION

FIRST_FD = 3  # sd_listen_fds(3)


def listener() -> socket.socket:
    """Take the socket that was passed to this process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        sys.exit("no socket was passed: start this with sockmgr or systemd")
    return socket.socket(fileno=FIRST_FD)


def serve(client: socket.socket) -> None:
    """Read one request and answer it."""
    client.settimeout(10)
    request = b""
    while b"\r\n\r\n" not in request:
        piece = client.recv(65536)
        if not piece:
            return
        request += piece
    url = urlsplit(request.split(b" ", 2)[1].decode())
    seconds = min(60.0, float(parse_qs(url.query).get("s", ["1"])[0]))
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
    body = json.dumps({"pid": os.getpid(), "version": VERSION}).encode()
    if url.path == "/stream":
        client.sendall(head + b"\r\n" + body + b"\n")
        time.sleep(seconds)
        client.sendall(b"END\n")
        return
    if url.path == "/slow":
        time.sleep(seconds)
    client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def main() -> None:
    """Accept until TERM."""
    server = listener()
    wake_read, wake_write = socket.socketpair()
    wake_write.setblocking(False)
    signal.set_wakeup_fd(wake_write.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)  # the wake-up socket tells
    # O_NONBLOCK belongs to the socket, not to this process: a sibling may have been faster,
    # and accept(2) must not wait then.
    server.setblocking(False)
    while True:
        ready, _, _ = select.select([server, wake_read], [], [])
        if wake_read in ready:
            return
        try:
            client, _ = server.accept()
        except BlockingIOError:
            continue
        with client:
            try:
                serve(client)
            except OSError as error:  # this client is gone; the next one is not
                print(f"client lost: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
