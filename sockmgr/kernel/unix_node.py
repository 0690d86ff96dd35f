"""The node of a unix socket in the file system: bound with its mode, and given to its owner.

Neither follows a name to what somebody else has put there since, as chmod(2) and chown(2) do.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
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
