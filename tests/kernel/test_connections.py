"""Which connections came to a listener: counted while they are open, whoever accepted them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sockmgr.kernel.connections import to_names, to_port


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


@pytest.mark.parametrize(
    ("family", "address", "client"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "dual stack"],
)
def test_the_connections_to_a_port_are_found_and_nothing_else(
    family: socket.AddressFamily, address: str, client: str
) -> None:
    dual = address == "::"
    with socket.create_server((address, 0), family=family, dualstack_ipv6=dual) as listener:
        port = listener.getsockname()[1]
        assert to_port(family, port) == frozenset()
        with socket.create_connection((client, port)) as caller:
            accepted, _ = listener.accept()
            with accepted:
                assert to_port(family, port) == {inode(accepted)}
                caller.shutdown(socket.SHUT_WR)
                accepted.recv(1)
                assert to_port(family, port) == {inode(accepted)}
            caller.recv(1)
        assert inode(listener) not in to_port(family, port)


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_connections_to_a_unix_socket_are_found_and_nothing_else(
    tmp_path: Path, kind: str
) -> None:
    path = str(tmp_path / "a socket")
    address, name = (path, path) if kind == "path" else (f"\0{path}", f"@{path}")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(address)
        listener.listen()
        assert to_names({name}) == frozenset()
        caller.connect(address)
        accepted, _ = listener.accept()
        with accepted:
            assert to_names({name}) == {inode(accepted)}
            assert to_names({"/another"}) == frozenset()
        assert to_names({name}) == frozenset()
