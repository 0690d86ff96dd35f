"""All TCP sockets that listen are seen, with their queues."""

from __future__ import annotations

import os
import socket

from sockmgr.kernel.listening import Listening, listening


def seen(sock: socket.socket) -> Listening | None:
    inode = os.fstat(sock.fileno()).st_ino
    return next((one for one in listening() if one.inode == inode), None)


def test_a_listening_socket_is_seen_with_its_address_and_its_queue() -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as sock, socket.socket(family) as client:
            sock.bind((host, 0))
            assert seen(sock) is None
            sock.listen(7)
            port = sock.getsockname()[1]
            client.connect((host, port))
            found = seen(sock)
            assert found is not None
            assert (found.host, found.port, found.queued, found.backlog) == (host, port, 1, 7)
            assert seen(client) is None
