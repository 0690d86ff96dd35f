"""Directories and files that only we and root can change, and that no other user can replace.

What the manager reads there decides what it runs, and as which user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from sockmgr.kernel.accounts import group_entry, user_name

_MOST_LINKS = 40  # path_resolution(7)
_ACCESS_LIST = "system.posix_acl_access"  # acl(5)


def flaw(directory: Path) -> str:
    """Say which other user may change the content of `directory`, or the way to it; "" if none.

    In a sticky directory only its owner can change a name, so one may be on the way. `directory`
    itself must not be sticky, for any user can add names there. Raises OSError if there is none.
    """
    here = Path("/")
    # Our own directory may have been removed, which is no matter to an absolute path.
    whole = directory if directory.is_absolute() else Path.cwd() / directory
    left = list(reversed(whole.parts[1:]))
    why, links = _flaw_of(here, last=not left), 0
    while left and not why:
        name = left.pop()
        if name == "..":
            here = here.parent
        elif (entry := here / name).is_symlink():
            why = _owner_of(entry)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(directory))
            target = entry.readlink()
            here = Path("/") if target.is_absolute() else here
            left += reversed(target.parts[target.is_absolute() :])
        else:
            here = entry
            why = _flaw_of(here, last=not left)
    return why


def open_file(path: Path) -> int:
    """Open for reading a file that only we can have written; the caller owns the descriptor.

    Raises PermissionError for any other file, and OSError if it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(fd)
    is_ours = found.st_uid == os.geteuid() and not found.st_mode & 0o077
    if stat.S_ISREG(found.st_mode) and is_ours and found.st_nlink == 1:
        return fd
    os.close(fd)
    raise PermissionError(errno.EPERM, "it is not a file of ours alone", str(path))


def write_file(path: Path, data: bytes) -> None:
    """Write a file that only we can read, and put it at `path` in one step; raise OSError."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    new = f"{path.name}.new"
    try:
        with contextlib.suppress(FileNotFoundError):  # a manager that died may have left it
            os.unlink(new, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(new, flags, 0o600, dir_fd=directory)
        try:
            write_all(fd, data)
            os.rename(new, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(new, dir_fd=directory)
            raise
        finally:
            os.close(fd)
    finally:
        os.close(directory)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` at the start of a file; raise OSError if there is no room."""
    at = 0
    while at < len(data):
        at += os.pwrite(fd, data[at:], at)


def _flaw_of(directory: Path, *, last: bool) -> str:
    if why := _owner_of(directory):
        return why
    found = directory.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    by_others = found.st_mode & stat.S_IWOTH
    by_group = found.st_mode & stat.S_IWGRP and not _is_of_us_alone(directory, found.st_gid)
    if not (by_others or by_group) or (found.st_mode & stat.S_ISVTX and not last):
        return ""
    return f"{'every user' if by_others else 'a group of users'} may write to {directory}"


def _owner_of(path: Path) -> str:
    uid = path.lstat().st_uid
    # The owner of "/" is root; in a user namespace without root it may show as another uid.
    trusted = {0, os.geteuid(), Path("/").stat().st_uid}
    return "" if uid in trusted else f"{path} belongs to another user ({user_name(uid)})"


def _is_of_us_alone(directory: Path, gid: int) -> bool:
    """Return whether a group has the name of its only member, and that is us or root."""
    with contextlib.suppress(OSError):  # ENODATA: the directory has no access list
        os.getxattr(directory, _ACCESS_LIST)
        return False  # then the group bits are a mask, and the list may name any user
    ours = {"root", user_name(os.geteuid())}
    group = group_entry(gid)
    return group is not None and group.gr_name in ours and ours.issuperset(group.gr_mem)
