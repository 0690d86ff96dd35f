"""Claim the path of a control socket for one manager at a time, and give it back.

Owns the listening socket and its path; replaces only a node at which nobody listens.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from sockmgr.errors import ControlError
from sockmgr.kernel import unix_node

LOCK_TIMEOUT = 5.0  # seconds; a lock is held for milliseconds
LOCK_DELAY = 0.01  # seconds
BACKLOG = 128  # clients: they wait here while the event loop is busy with something else


class Claim:
    """A path that is ours: a listening socket for this user only, until `close()`."""

    def __init__(self, path: Path, *, patience: float = LOCK_TIMEOUT) -> None:
        """Listen at `path`; raise ControlError if another process does, or is about to.

        Another process that is about to listen is waited for, `patience` seconds at most.
        """
        self.path = path
        try:
            with _lock(path, patience):
                _clear(path)
                self.socket = unix_node.listen(path, socket.SOCK_STREAM, BACKLOG)
                self.socket.setblocking(False)
                self._identity = unix_node.identity(path)
        except OSError as error:
            raise ControlError(
                f"cannot open the control socket {path}: {error.strerror or error}",
                means="nothing was started: without it nobody could reload or stop the manager",
                do="name another path with --control or SOCKMGR_CONTROL",
            ) from error

    @classmethod
    def resume(cls, path: Path, fd: int) -> Claim:
        """Own `fd`, the listening socket of a claim that was never given back."""
        claim = cls.__new__(cls)
        claim.path, claim.socket = path, socket.socket(fileno=fd)
        claim._identity = unix_node.identity(path)
        return claim

    @property
    def holds(self) -> bool:
        """Whether the path still leads to the socket."""
        found = unix_node.identity(self.path)
        return found is not None and found == self._identity

    def share(self, mode: int, gid: int) -> None:
        """Give the node this mode and group (-1: our own); raise OSError."""
        if self._identity:
            unix_node.change(self.path, self._identity, mode, -1, gid)

    def close(self) -> None:
        """Stop listening, and remove the path unless another has claimed it since."""
        self.socket.close()
        if self.holds:
            self.path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    try:
        pid = unix_node.clear(path, socket.SOCK_STREAM)
    except FileExistsError:
        raise ControlError(
            f"{path} exists and is not a socket",
            means="nothing was started, and the file was left alone",
            do="name another path with --control or SOCKMGR_CONTROL",
        ) from None
    if pid is not None:
        whose = f" (pid {pid})" if pid else ""
        raise ControlError(
            f"another manager{whose} answers at {path}",
            means="it goes on serving; nothing was started",
            do='reload it ("sockmgr reload"), stop it first, or name another path with --control',
        )


@contextlib.contextmanager
def _lock(path: Path, patience: float) -> Iterator[None]:
    """Keep out another process that found the same stale node, and would remove our new one."""
    lock = path.with_name(f".{path.name}.lock")
    deadline = time.monotonic() + patience
    while True:
        # O_NOFOLLOW: where others may write to the directory, a link there could have us create a
        # file of their choice.
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _wait_for(fd, lock, deadline)
        except BaseException:
            os.close(fd)
            raise
        if os.fstat(fd).st_nlink:
            break
        os.close(fd)  # its holder has removed it while we waited: the next one is another file
    try:
        yield
    finally:
        # Before the lock is released, so that whoever gets it next sees that the file is gone.
        lock.unlink(missing_ok=True)
        os.close(fd)


def _wait_for(fd: int, lock: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise _held(lock) from None
            time.sleep(LOCK_DELAY)  # flock(2) knows no deadline
        else:
            return


def _held(lock: Path) -> ControlError:
    return ControlError(
        f"another process holds {lock}, and does not let go: it hangs while it starts there",
        means="nothing was started",
        do=f'end it ("fuser {lock}" tells its pid), or name another path with --control',
    )
