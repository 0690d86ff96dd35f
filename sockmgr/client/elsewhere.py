"""Finds managers that this user may not talk to, and managers whose control socket was removed.

Changes nothing. Every user may read in /proc/net/unix at which paths processes listen.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sockmgr.client.places import searched
from sockmgr.kernel.accounts import user_name
from sockmgr.kernel.listening import listening_names

# Where managers of any user have their control sockets that were started without --control.
_USUAL = re.compile(r"/run/sockmgr(?:-[^/]+)?|/run/user/\d+/sockmgr|(?:/tmp|/dev/shm)/sockmgr-\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A manager that listens at `path`; `uid` is its user, None if the path was removed.

    `answers_us` is whether this user may talk to it.
    """

    path: Path
    uid: int | None
    answers_us: bool = False

    @property
    def what(self) -> str:
        if self.uid is None:
            return f"a manager lives whose control socket {self.path} was removed"
        return f"a manager of user {self.user} listens at {self.path}"

    @property
    def do(self) -> str:
        if self.uid is None:
            return "it binds that again if it can; or kill -HUP it to reload, kill it to stop it"
        if self.answers_us:
            return f"name it: --control {self.path}"
        return f"run this as {self.user}" + (", or as root" if self.uid and os.geteuid() else "")

    @property
    def user(self) -> str:
        """The name of the manager's user, or the uid if it has no name."""
        return user_name(self.uid or 0)


def elsewhere(name: str | None, asked: Path | None = None) -> Iterator[Elsewhere]:
    """Yield the managers called `name` (None: all) in the usual places, or the one at `asked`."""
    # Whoever looks with the variables of a manager, and may not enter its directory, is to be told.
    places = searched()
    for text in sorted(listening_names()):
        place, _, base = text.rpartition("/")
        usual = base.endswith(".sock") and (place in places or _USUAL.fullmatch(place))
        if text == str(asked.absolute()) if asked else usual and name in (None, base[:-5]):
            yield _look(Path(text))


def _look(path: Path) -> Elsewhere:
    try:
        uid = path.lstat().st_uid
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(os.fspath(path))
    except PermissionError:  # on the socket, or on a directory above it, whose owner is the user
        return Elsewhere(path=path, uid=_owner(path))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return Elsewhere(path=path, uid=None)
    except BlockingIOError:  # the backlog is full, so there is a listener
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
