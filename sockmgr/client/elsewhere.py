"""Managers that this user may not talk to, or that lost their path: what their sockets show.

Looks only: every user may read in /proc/net/unix which paths are listened at.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sockmgr.kernel.listening import listening_names

# Where managers listen that were started without --control.
_USUAL = re.compile(
    r"(?:/run/sockmgr(?:-[^/]+)?|/run/user/\d+/sockmgr|/tmp/sockmgr-\d+)/(?P<name>[^/]+)\.sock"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A manager, by its control socket; without a `uid` the node at its path was removed."""

    path: Path
    uid: int | None
    answers_us: bool = False

    @property
    def what(self) -> str:
        """A sentence about it."""
        if self.uid is None:
            return f"a manager lives whose control socket {self.path} was removed"
        return f"a manager of user {self.user} listens at {self.path}"

    @property
    def do(self) -> str:
        """How to talk to it."""
        if self.uid is None:
            return "it binds that again if it can; or kill -HUP it to reload, kill it to stop it"
        if self.answers_us:
            return f"name it: --control {self.path}"
        return f"run this as {self.user}" + (", or as root" if self.uid and os.geteuid() else "")

    @property
    def user(self) -> str:
        """The name of whoever runs it, as far as it is known."""
        try:
            return pwd.getpwuid(self.uid or 0).pw_name
        except KeyError:
            return str(self.uid)


def elsewhere(name: str | None, asked: Path | None = None) -> Iterator[Elsewhere]:
    """Yield the managers called `name` (None: all) in the usual places, or the one `asked` for."""
    for text in sorted(listening_names()):
        usual = _USUAL.fullmatch(text)
        if text == str(asked.absolute()) if asked else usual and name in (None, usual["name"]):
            yield _look(Path(text))


def _look(path: Path) -> Elsewhere:
    try:
        uid = path.lstat().st_uid
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(os.fspath(path))
    except PermissionError:  # for the socket, or for a directory above it, whose owner counts then
        return Elsewhere(path=path, uid=_owner(path))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return Elsewhere(path=path, uid=None)
    except BlockingIOError:  # its backlog is full
        pass
    return Elsewhere(path=path, uid=uid, answers_us=True)


def _owner(path: Path) -> int | None:
    for place in (path, *path.parents):
        try:
            return place.lstat().st_uid
        except PermissionError:
            continue
        except FileNotFoundError:
            return None
    return None
