"""The node of a unix socket in the file system: who is at it, and how one comes to be there.

To bind it with its mode and to give it to its owner follow no name to what somebody else has put
there since, as chmod(2) and chown(2) do.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from pathlib import Path


def bind(sock: socket.socket, path: str | os.PathLike[str], mode: int | None) -> None:
    """Bind `sock` to a new node with this mode (None: what the umask leaves); raise OSError.

    The umask is that of the whole process: no other thread may make files meanwhile.
    """
    before = None if mode is None else os.umask(0o777 & ~mode)
    try:
        sock.bind(os.fspath(path))
    finally:
        if before is not None:
            os.umask(before)


def give(path: Path, uid: int, gid: int) -> None:
    """Give the node at `path`, which we have just bound, to a user and a group (-1: as it is).

    Raises OSError, also if it is not a socket of ours any more.
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
    """Set the mode and the owner of the socket at `path`, if it is the one of this identity.

    What the config leaves out (None, -1) becomes what bind(2) gives: what the umask leaves, and
    the user and group of this process. Raises OSError.
    """
    node = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(node)
        if (found.st_dev, found.st_ino) != identity:
            raise FileExistsError(errno.EEXIST, "somebody has replaced it", str(path))
        by_descriptor = f"/proc/self/fd/{node}"  # fchmod(2) refuses one of O_PATH
        owner = (os.geteuid() if uid == -1 else uid, os.getegid() if gid == -1 else gid)
        if owner != (found.st_uid, found.st_gid):
            os.chown(by_descriptor, *owner)
        Path(by_descriptor).chmod(0o777 & ~_umask() if mode is None else mode)
    finally:
        os.close(node)


def _umask() -> int:
    umask = os.umask(0o077)  # there is no call that only reads it
    os.umask(umask)
    return umask


def listen(path: Path, kind: socket.SocketKind, backlog: int) -> socket.socket:
    """Return a socket that listens at `path`, for this user only; raise OSError."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        bind(sock, path, 0o600)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def clear(path: Path, kind: socket.SocketKind) -> int | None:
    """Remove the node at `path` if nobody listens there any more, and return None.

    Return the pid of the process that listens, 0 if it has no time to say. Raises OSError, and
    FileExistsError if something else than a socket is there, which is left alone.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "the path exists and is not a socket", str(path))
    with socket.socket(socket.AF_UNIX, kind) as caller:
        caller.setblocking(False)  # connect(2) would wait for room in the backlog
        try:
            caller.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return None
        except BlockingIOError:  # its backlog is full, so somebody listens
            return 0
        return credentials(caller)[0]


def identity(path: Path) -> tuple[int, int] | None:
    """Return which node is at a path, None if there is none or nobody can tell."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Return the pid and uid of the other end, as the kernel knows them (unix(7), SO_PEERCRED).

    Of the process that connected; seen from there, of the process that called listen(2).
    """
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", data)
    return pid, uid
