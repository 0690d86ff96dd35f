"""The sockets of one group: how another is bound beside them, and why it cannot be.

A group is all sockets of one user that were bound to one address with SO_REUSEPORT, socket(7).
"""

from __future__ import annotations

import errno
import os
import socket

from sockmgr.errors import ListenError
from sockmgr.kernel import free_bind
from sockmgr.kernel.closing import closed_on_error
from sockmgr.kernel.steering import classic

# Options that a new member copies from the first one, so that workers see no difference. Without
# SO_REUSEADDR it could not be bound beside connections accepted before SO_REUSEPORT was set.
_COMMON = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
)


def bind_twin(first: socket.socket, *, quiet: bool = False) -> socket.socket:
    """Return a socket bound to the address of `first` with its options, not listening yet."""
    twin = socket.socket(first.family, first.type)
    with closed_on_error(twin):
        for level, option in _COMMON:
            twin.setsockopt(level, option, first.getsockopt(level, option))
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.type == socket.SOCK_STREAM:
            nodelay = first.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        if first.family == socket.AF_INET6:
            v6only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            twin.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        owner = os.fstat(first.fileno()).st_uid
        if owner != os.fstat(twin.fileno()).st_uid:
            # All members of a group have one uid. fchown(2), which root may call, sets a socket's.
            os.fchown(twin.fileno(), owner, -1)
        if quiet:
            classic.put_filter(twin, classic.DROP)
        free_bind.allow(twin)  # the address may have gone since the first was bound
        os.set_blocking(twin.fileno(), os.get_blocking(first.fileno()))
        twin.bind(first.getsockname())
    return twin


def cannot_join(sock: socket.socket, error: OSError) -> ListenError:
    """Return the error for a socket beside which no other can be bound."""
    owner = os.fstat(sock.fileno()).st_uid
    if error.errno == errno.EPERM or owner != os.geteuid():
        what = f"the socket belongs to uid {owner} and this process is uid {os.geteuid()}"
    elif error.errno == errno.EADDRINUSE:
        what = "no second socket can be bound to its address"
    else:
        what = f"the kernel does not let us steer ({error.strerror})"
    return ListenError(
        what, do="ReusePort=yes and the same ListenStream= twice in the .socket unit mends it"
    )


def twin(first: socket.socket, *, backlog: int) -> socket.socket:
    """Return a new socket that listens at the address of `first`, which may be shut down."""
    sock = bind_twin(first)
    if sock.type == socket.SOCK_STREAM:
        sock.listen(backlog)
    return sock


def cannot_grow(address: str, size: int, error: OSError) -> ListenError:
    """Return the error for a pool of `size` queues that cannot have one more."""
    do = "raise LimitNOFILE= if file descriptors ran out; reload again otherwise"
    if isinstance(error, PermissionError):  # the other queues belong to another user
        do = "repeat its ListenStream= once more in the .socket unit, or run as root"
    return ListenError(
        f"cannot open another queue on {address}: {(error.strerror or '').lower()}",
        means=f"the {size} queues it has go on as before",
        do=do,
    )
