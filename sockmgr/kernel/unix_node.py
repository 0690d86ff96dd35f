"""The node of a unix socket in the file system: made, given to its owner, looked at, removed.

Mode and owner are set through a descriptor of the node. chmod(2) and chown(2) go by the path, at
which another user may have put something else since.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from array import array
from pathlib import Path

from sockmgr.kernel.closing import closed_on_error

_SO_PEERGROUPS = 59  # asm-generic/socket.h: the groups of initgroups(3), Linux 4.13


def bind(sock: socket.socket, path: str | os.PathLike[str], mode: int | None) -> None:
    """Bind `sock` to a new node with this mode (None: what the umask leaves); raise OSError.

    Changes the umask of the process for a moment, so no other thread may create files meanwhile.
    """
    before = None if mode is None else os.umask(0o777 & ~mode)
    try:
        sock.bind(os.fspath(path))
    finally:
        if before is not None:
            os.umask(before)


def give(path: Path, uid: int, gid: int) -> None:
    """Give the node at `path`, which we have just bound, to a user and a group (-1: unchanged).

    Raises OSError, also if the node at `path` is not a socket of ours any more.
    """
    node = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(node)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            raise FileExistsError(errno.EEXIST, "somebody has replaced it", str(path))
        os.chown(f"/proc/self/fd/{node}", uid, gid)
    finally:
        os.close(node)


def change(path: Path, identity: tuple[int, int], mode: int | None, uid: int, gid: int) -> None:
    """Set the mode and the owner of the node at `path`, if it has this identity; raise OSError.

    None and -1 stand for what bind(2) gives: the mode that the umask leaves, and the user and the
    group of this process.
    """
    node = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(node)
        if (found.st_dev, found.st_ino) != identity:
            raise FileExistsError(errno.EEXIST, "somebody has replaced it", str(path))
        by_descriptor = f"/proc/self/fd/{node}"  # fchmod(2) refuses a descriptor with O_PATH
        owner = (os.geteuid() if uid == -1 else uid, os.getegid() if gid == -1 else gid)
        if owner != (found.st_uid, found.st_gid):
            os.chown(by_descriptor, *owner)
        Path(by_descriptor).chmod(0o777 & ~umask() if mode is None else mode)
    finally:
        os.close(node)


def umask() -> int:
    """Return the umask of this process; no other thread may create files meanwhile."""
    current = os.umask(0o077)  # there is no call that only reads it
    os.umask(current)
    return current


def listen(path: Path, kind: socket.SocketKind, backlog: int) -> socket.socket:
    """Return a socket that listens at `path`, for this user only; raise OSError."""
    sock = socket.socket(socket.AF_UNIX, kind)
    with closed_on_error(sock):
        bind(sock, path, 0o600)
        sock.listen(backlog)
    return sock


def clear(path: Path, kind: socket.SocketKind) -> int | None:
    """Remove the node at `path` and return None, if no process listens there any more.

    Otherwise return the pid of the process that listens, or 0 if its backlog is full. Raises
    OSError; FileExistsError if the node is no socket, which then stays.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "the path exists and is not a socket", str(path))
    pid = listener_at(path, kind)
    if pid is None:
        path.unlink()
    return pid


def listener_at(path: Path, kind: socket.SocketKind) -> int | None:
    """Return the pid of the process that listens at `path`, 0 if its backlog is full.

    None if no process listens at this socket any more. Raises OSError for another kind of socket,
    and if we may not connect to it.
    """
    with socket.socket(socket.AF_UNIX, kind) as caller:
        caller.setblocking(False)  # connect(2) would wait for room in the backlog
        try:
            caller.connect(os.fspath(path))
        except ConnectionRefusedError:
            return None
        except BlockingIOError:
            return 0
        return credentials(caller)[0]


def identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the node at a path, None if there is none that we can see."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Return the pid and the uid of the other end, from the kernel (unix(7), SO_PEERCRED).

    A server gets those of the process that connected, a client those of the process that called
    listen(2).
    """
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", data)
    return pid, uid


def groups(sock: socket.socket) -> frozenset[int]:
    """Return the gids of the other end, from the kernel: of more than 256 only its own."""
    found = array("I", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[8:])
    with contextlib.suppress(OSError):  # ERANGE: Python reads 1024 bytes at most
        found.frombytes(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024))
    return frozenset(found)
