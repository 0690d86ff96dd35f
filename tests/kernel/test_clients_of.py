"""Who is connected to a port is told by the kernel, with the client's own port."""

from __future__ import annotations

import os
import socket

import pytest

from sockmgr.kernel import connections


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_accepted_connections_to_a_port_are_known_by_their_clients_ports(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        assert connections.clients_of(port) == {}
        with socket.create_connection((host, port)) as client:
            assert connections.clients_of(port) == {}  # nobody has accepted it
            accepted, _ = listener.accept()
            with accepted:
                inode = os.fstat(accepted.fileno()).st_ino
                assert connections.clients_of(port) == {inode: client.getsockname()[1]}
