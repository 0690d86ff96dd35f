"""The messages between a manager and a template: datagrams of a SOCK_SEQPACKET pair.

    template  ->  manager   IMPORTED
    manager   ->  template  MAKE, with the worker's end of a pair of its own
    template  ->  manager   MADE, with a pidfd of the worker; or FAILED and why
    manager   ->  worker    encode(environment), with descriptors for 1, 2, 3, ...

The last message goes over the worker's own pair. Until it comes the worker does nothing, and if the
pair is closed first the worker ends. So no worker ever works that its manager does not know of.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from collections.abc import Mapping, MutableMapping

IMPORTED, MAKE, MADE, FAILED = b"imported", b"make", b"made", b"failed "
SIZE = 1 << 20  # bytes of the longest datagram


def receive(sock: socket.socket, size: int, fds: int, flags: int = 0) -> tuple[bytes, list[int]]:
    """Return a datagram and its descriptors, which the caller owns; they are close-on-exec.

    Raises OSError, also if there were more than `fds`, or more than this process may open.
    """
    # socket.recv_fds() ignores its flags, so the descriptors would be inherited by children.
    data, ancillary, told, _ = sock.recvmsg(
        size, socket.CMSG_LEN(fds * 4), flags | socket.MSG_CMSG_CLOEXEC
    )
    found = array.array("i")
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(packed[: len(packed) // 4 * 4])
    if told & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        for fd in found:
            os.close(fd)
        raise OSError(errno.EMSGSIZE, "descriptors were lost (raise the limit nofile)")
    return data, list(found)


def encode(environment: Mapping[str, str | None]) -> bytes:
    """Return a message with the variables to set, or to remove if None. It is never empty."""
    lines = [os.fsencode(name if value is None else f"{name}={value}")
             for name, value in environment.items()]  # fmt: skip
    return b"\0".join([b"", *lines]) + b"\0"


def apply(message: bytes, environment: MutableMapping[str, str]) -> None:
    """Change `environment` as the message of encode() says."""
    for line in filter(None, message.split(b"\0")):
        name, equals, value = os.fsdecode(line).partition("=")
        if equals:
            environment[name] = value
        else:
            environment.pop(name, None)
