"""Restore the name of a unix socket in the file system after another program removed it.

A socket outlives its name, and one without any name can get no new one. So a hidden hard link, the
spare, is kept beside the name. Owns the spare; the caller decides when the name itself is removed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from sockmgr.kernel import unix_node


class UnixName:
    """The node that a socket was bound to, at `path`."""

    def __init__(self, path: Path) -> None:
        """Remember the node that is at `path` now, and make the spare if that is possible."""
        self.path = path
        self._spare = path.with_name(f".{path.name}.sockmgr")
        self._identity = unix_node.identity(path)
        self._linked = False
        if self._identity is None:
            return
        # Not in a directory of others, or without hard links: then restore() returns False.
        with contextlib.suppress(OSError):
            self._spare.unlink(missing_ok=True)
            os.link(path, self._spare, follow_symlinks=False)
            self._linked = True

    @property
    def holds(self) -> bool:
        """Whether the path still leads to the socket."""
        return self._identity is not None and unix_node.identity(self.path) == self._identity

    @property
    def vacant(self) -> bool:
        return unix_node.identity(self.path) is None

    @property
    def is_socket(self) -> bool:
        """Whether the path leads to a socket, ours or not."""
        with contextlib.suppress(OSError):
            return stat.S_ISSOCK(self.path.lstat().st_mode)
        return False

    def restore(self) -> bool:
        """Put the name back in one step, over whatever is there; return whether that succeeded."""
        if not self._linked or unix_node.identity(self._spare) != self._identity:
            return False
        beside = self.path.with_name(f".{self.path.name}.new")
        try:
            beside.unlink(missing_ok=True)  # a manager that crashed may have left it
            os.link(self._spare, beside, follow_symlinks=False)
            beside.rename(self.path)
        except OSError:
            return False
        return True

    def change(self, mode: int | None, uid: int, gid: int) -> None:
        """Set the mode and the owner of the node, through the name or the spare.

        None and -1 stand for what bind(2) would give. Raises OSError.
        """
        if self._identity is not None:
            path = self.path if self.holds else self._spare
            unix_node.change(path, self._identity, mode, uid, gid)

    def take_away(self) -> None:
        """Remove the name if it still leads to the socket; restore() puts it back."""
        if self.holds:
            with contextlib.suppress(OSError):  # the directory is not ours any more
                self.path.unlink()

    def release(self) -> None:
        if self._linked and unix_node.identity(self._spare) == self._identity:
            with contextlib.suppress(OSError):
                self._spare.unlink()
        self._linked = False
