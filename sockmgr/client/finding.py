"""Where control sockets of managers are: those that exist, and the one of a new manager.

Asks whoever listens only where several do: which are managers, and which of them is meant.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from sockmgr.client.client import LIVENESS_TIMEOUT, Client, is_same
from sockmgr.client.connection import ForbiddenError, StillWaitingError, no_manager
from sockmgr.client.places import SOCKET_VARIABLE, listening, places, searched
from sockmgr.errors import ControlError, SockmgrError
from sockmgr.kernel import private

PATH_MAX = 107  # bytes of sun_path without its NUL, unix(7)
_PATIENCE = 2.0  # seconds; who has not answered by then may be a manager that hangs


def given_control(explicit: str | None) -> Path | None:
    """Return the control socket that --control or SOCKMGR_CONTROL names, None if neither does."""
    given = explicit or os.environ.get(SOCKET_VARIABLE)
    return Path(given) if given else None


def find_control(explicit: str | None, name: str | None, file: Path | None = None) -> Path:
    """Return the control socket that is meant; raise NoManagerError or ControlError.

    It is the `explicit` one, else that of the manager called `name`, else that of the only manager
    that runs. If several managers have the name, it is that of the one that reads `file`.
    """
    if given := given_control(explicit):
        return given
    found = live_controls(name)
    if not found:
        wanted = f'named "{name}" in ' if name else "in "
        raise no_manager(wanted + ", ".join(searched()), name)
    if len(found) > 1 and file:
        found = [path for path in found if _reads(path, file)] or found
    if len(found) > 1:
        raise ControlError(
            "several managers run here: " + ", ".join(str(path) for path in found),
            means="none was asked to do anything",
            do=f"name one with --control or {SOCKET_VARIABLE}"
            + (", or give its config with -c" if name is None else ""),
        )
    return found[0]


def check_length(path: Path) -> None:
    """Raise ControlError if the path is too long for the control socket or one beside it."""
    longest = max((path, *map(path.with_suffix, (".keeper", ".notify"))), key=_length)
    if _length(longest) > PATH_MAX:
        raise ControlError(
            f"the control socket cannot be {path}: {longest} beside it has {_length(longest)} "
            f"bytes, and a unix path has at most {PATH_MAX}",
            means="nothing was started",
            do="name a shorter path with --control",
        )


def _length(path: Path) -> int:
    return len(os.fsencode(path))


def live_controls(name: str | None) -> list[Path]:
    """Return the control sockets in the usual places at which a manager listens.

    With a `name`, return only those of managers called so.
    """
    live = list(map(Path, listening(name)))
    return _of_managers(live) if len(live) > 1 else live


def _of_managers(paths: list[Path]) -> list[Path]:
    """Leave out the sockets of applications: listeners of a manager, and who answers otherwise."""
    left, listeners = list[Path](), set[str]()
    for path in paths:
        try:
            status = Client(path, timeout=_PATIENCE).status(sizes=False)
            listeners.update(each.address for each in status.listeners.values())
        except (ForbiddenError, StillWaitingError):
            pass
        except SockmgrError:
            continue
        left.append(path)
    return [path for path in left if f"unix://{path}" not in listeners] or paths


def _reads(path: Path, file: Path) -> bool:
    try:
        read = Client(path, timeout=LIVENESS_TIMEOUT).status(sizes=False).manager.config
    except SockmgrError:
        return False
    return bool(read) and is_same(Path(read or ""), file)


def possible_controls(explicit: str | None, name: str) -> list[Path]:
    """Return the paths at which the control socket of the manager called `name` is looked for."""
    if given := given_control(explicit):
        return [given]
    return [Path(place, f"{name}.sock") for place in searched()]


def default_control(name: str, refused: Callable[[Path, str], None] | None = None) -> Path:
    """Return where the manager called `name` is to listen; make the directory if need be.

    `refused` is called for each directory that is passed over because others may write there, with
    the directory and the reason. Raises ControlError if no directory can be used.
    """
    reasons = []
    for place in map(Path, places()):
        try:
            flaw = _prepare(place)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
            continue
        if not flaw:
            return place / f"{name}.sock"
        reasons.append(f"{place}: {flaw}")
        if refused:
            refused(place, flaw)
    raise ControlError(
        "there is no directory for the control socket: " + "; ".join(reasons),
        means="nothing was started",
        do=f"name a path with --control or {SOCKET_VARIABLE}, in a directory that is yours alone",
    )


def why_no_control(explicit: str | None) -> str:
    """Return why a manager started here could not listen for its clients, "" if it could."""
    given = given_control(explicit)
    reasons = []
    for place in [given.absolute().parent] if given else map(Path, places()):
        # A manager makes the last directory of a usual place, but none of a given path.
        there = place if given or place.exists() else place.parent
        try:
            why = private.flaw(there) if there == place else ""
        except OSError as error:
            why = str(error.strerror)
        if not why and os.access(there, os.W_OK | os.X_OK, effective_ids=True):
            return ""
        reasons.append(f"{place}: {why or f'{there} cannot be written'}")
    return "; ".join(reasons)


def check_control(path: Path) -> None:
    """Raise ControlError if others may write to the directory of this control socket.

    A manager leaves the next one its state there, which says what to run as the manager's user.
    """
    try:
        flaw = private.flaw(path.parent)
    except OSError:  # listening there will fail, with an error of its own
        return
    if flaw:
        raise ControlError(
            f"cannot use {path} as control socket: {flaw}",
            means="nothing was started: whoever may write there could have us run anything",
            do="name a path in a directory that is yours alone: `mkdir -m 700 DIRECTORY`, "
            "--control DIRECTORY/NAME.sock",
        )


def _prepare(place: Path) -> str:
    """Make a directory for control sockets if there is none; return its flaw, "" if none."""
    above = place.parent.stat().st_uid
    # su(1) keeps the XDG_RUNTIME_DIR of another user, who may replace what we would make there.
    if above not in (0, os.geteuid()):
        return f"{place.parent} belongs to another user ({above})"
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
        if os.geteuid() == 0:
            # Workers of other users must reach the notify socket. Its neighbours stay root's alone.
            place.chmod(0o711)
    if flaw := private.flaw(place):
        return flaw
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it cannot be written")
    return ""
