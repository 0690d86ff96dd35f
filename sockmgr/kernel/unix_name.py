"""The name of a unix socket in the file system, and a second one from which it is restored.

A socket outlives its name, and no name can be given to a socket that has none left; so a hidden
hard link is kept beside it. Owns that link; whose the name itself is, the caller knows.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sockmgr.kernel import unix_node


class UnixName:
    """The node that is at `path` now: what a socket was bound to."""

    def __init__(self, path: Path) -> None:
        """Remember what is at `path`, and keep a spare link to it if that is possible."""
        self.path = path
        self._spare = path.with_name(f".{path.name}.sockmgr")
        self._identity = unix_node.identity(path)
        self._linked = False
        if self._identity is None:
            return
        try:
            self._spare.unlink(missing_ok=True)
            os.link(path, self._spare, follow_symlinks=False)
            self._linked = True
        except OSError:  # not our directory, or no hard links here: restore() will say so
            return

    @property
    def holds(self) -> bool:
        """Whether the path still leads to the socket."""
        return self._identity is not None and unix_node.identity(self.path) == self._identity

    @property
    def vacant(self) -> bool:
        """Whether there is nothing at the path at all."""
        return unix_node.identity(self.path) is None

    @property
    def is_socket(self) -> bool:
        """Whether the path leads to a socket, ours or not."""
        try:
            return stat.S_ISSOCK(self.path.lstat().st_mode)
        except OSError:
            return False

    def restore(self) -> bool:
        """Put the name back in one step, over whatever is there; say whether it could be done."""
        if not self._linked or unix_node.identity(self._spare) != self._identity:
            return False
        beside = self.path.with_name(f".{self.path.name}.new")
        try:
            beside.unlink(missing_ok=True)  # a crash may have left it
            os.link(self._spare, beside, follow_symlinks=False)
            beside.rename(self.path)
        except OSError:
            return False
        return True

    def change(self, mode: int | None, uid: int, gid: int) -> None:
        """Set the mode and the owner of the socket, by whichever link leads to it.

        None and -1 stand for what bind(2) gives. Raises OSError.
        """
        if self._identity is not None:
            path = self.path if self.holds else self._spare
            unix_node.change(path, self._identity, mode, uid, gid)

    def take_away(self) -> None:
        """Remove the name if it still leads to the socket; restore() puts it back."""
        if self.holds:
            _unlink(self.path)

    def release(self) -> None:
        """Remove the spare link."""
        if self._linked and unix_node.identity(self._spare) == self._identity:
            _unlink(self._spare)
        self._linked = False

    def remove(self) -> None:
        """Remove the name itself if it still leads to the socket, and the spare link."""
        self.take_away()
        self.release()


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError:  # gone already, or in a directory that is not ours any more
        return
