"""One request by hand, and its whole answer."""

from __future__ import annotations

import contextlib
import socket

from tests.helpers.load import Target


def ask(target: Target, path: str = "/") -> bytes:
    """Send one request; return the whole answer, empty if the connection is refused or lost."""
    with socket.socket(target.family) as client, contextlib.suppress(ConnectionError):
        client.settimeout(10)
        client.connect(target.address)
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer
    return b""
