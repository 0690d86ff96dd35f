"""Close a socket that could not be made ready for its owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket


@contextmanager
def closed_on_error(sock: socket) -> Iterator[None]:
    """Close `sock` if this block fails or is cancelled, as nobody would own it then."""
    try:
        yield
    except BaseException:
        sock.close()
        raise
