"""The caller's side of the control socket: find a manager, ask it, wait for its answer.

Each question has a plain blocking socket of its own, which needs no event loop, so that commands
start fast. Waits without an end only for operations, if no timeout is given; reads at most a
bound; starts nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sockmgr.api import varlink
from sockmgr.api.types import Plan, Progress, Status, Verdict
from sockmgr.client.connection import (
    Connection,
    ForbiddenError,
    LostError,
    NoManagerError,
    NotAskedError,
    StillWaitingError,
    no_manager,
)
from sockmgr.errors import ControlError, SockmgrError
from sockmgr.kernel import private

__all__ = [
    "Client", "ForbiddenError", "LostError", "NoManagerError", "NotAskedError", "StillWaitingError",
    "check_control", "check_length", "default_control", "find_control", "live_controls",
    "no_manager", "possible_controls",
]  # fmt: skip

SOCKET_VARIABLE = "SOCKMGR_CONTROL"
LIVENESS_TIMEOUT = 10.0
PATH_MAX = 107  # sun_path without its NUL, unix(7)

_Ask = TypeVar("_Ask", bound=varlink.Ask)
_Answer = TypeVar("_Answer", bound=varlink.Answer)


class Client:
    """Asks the manager at one control socket.

    `timeout` is for each question; without one, an operation may take as long as it needs.
    """

    def __init__(
        self, path: Path, *, timeout: float | None = None, file: Path | None = None
    ) -> None:
        """Ask the manager at `path`; with `file`, ask for a change only if that is its config.

        A manager of a version that does not say what it reads is taken to read `file`.
        """
        self.path = path
        self._timeout, self._file = timeout, file

    def stranger(self) -> str:
        """Say what else than our config file the manager reads; "" if it reads ours."""
        return self._stranger(self.status(sizes=False)) if self._file else ""

    def peer(self) -> int:
        """Return the pid of the manager, 0 if it is in a PID namespace that we do not see."""
        with self._connect() as line:
            return line.peer

    def ask(self, method: varlink.Method[_Ask, _Answer], ask: _Ask) -> _Answer:
        """Return the reply to any method; for one that changes something see `__init__`."""
        with self._operate() if method.changes else self._connect() as line:
            return line.converse(method, ask)

    def status(self, *, sizes: bool = True) -> Status:
        """Return what runs; without `sizes`, which cost the manager most, the `rss` is 0."""
        return self.ask(varlink.STATUS, varlink.AskStatus(sizes=None if sizes else False))

    def plan(self, text: str | None = None, file: str | None = None) -> Plan:
        """Return what the config `text` of `file` would change (None: what a reload would)."""
        return self.ask(varlink.PLAN, varlink.AskPlan(text=text, file=file))

    def scale(self, service: str, workers: int, *, relative: bool) -> int:
        """Want this many workers, or so many more; return the number when they are ready."""
        ask = varlink.AskScale(service=service, workers=workers, relative=relative)
        return self.ask(varlink.SCALE, ask).workers

    def restart_worker(self, worker: str) -> str:
        """Replace one worker (`web@7.2`); return its successor's name when that is done."""
        ask = varlink.AskRestartWorker(worker=worker)
        return self.ask(varlink.RESTART_WORKER, ask).successor

    def upgrade(self) -> str:
        """Have the manager replace its code; return which version it had. Connect again then."""
        return self.ask(varlink.UPGRADE, varlink.AskUpgrade()).version

    def stop(self, *, now: bool) -> None:
        """Stop the manager; return when no worker is left."""
        self.ask(varlink.STOP, varlink.AskStop(now=now))

    def reload(
        self, services: tuple[str, ...], on_progress: Callable[[Progress], None] | None = None
    ) -> list[Verdict]:
        """Replace the workers of these services (none: of all); return how each rollout ended."""
        with self._operate() as line:
            line.send(varlink.AskReload(services=services), more=True)
            while True:
                reply = line.receive(varlink.Reloaded)
                if reply.verdicts is not None:
                    return list(reply.verdicts)
                if reply.progress is not None and on_progress is not None:
                    on_progress(reply.progress)

    def logs(self, service: str, lines: int) -> varlink.Logged:
        """Return the last lines of the log, about one service or all, or where they are."""
        return self.ask(varlink.LOGS, varlink.AskLogs(service=service or None, lines=lines))

    def follow_logs(self, service: str, lines: int) -> Iterator[varlink.Logged]:
        """Yield what logs() returns, then each new line, until the manager leaves."""
        ask = varlink.AskLogs(service=service or None, lines=lines)
        yield from self._follow(varlink.LOGS, ask)

    def events(
        self, service: str = "", *, after: int | None = None, last: int | None = None
    ) -> varlink.Happened:
        """Return the last events (None: all) about one service or any, or those `after` an id."""
        ask = varlink.AskEvents(service=service or None, after=after, last=last)
        return self.ask(varlink.EVENTS, ask)

    def follow_events(
        self, service: str = "", *, after: int | None = None, last: int | None = None
    ) -> Iterator[varlink.Happened]:
        """Yield what events() returns, then each new event, until the manager leaves."""
        ask = varlink.AskEvents(service=service or None, after=after, last=last)
        yield from self._follow(varlink.EVENTS, ask)

    def _follow(self, method: varlink.Method[_Ask, _Answer], ask: _Ask) -> Iterator[_Answer]:
        with self._connect() as line:
            line.send(ask, more=True)
            yield line.receive(method.reply)
            line.extend(self._timeout)
            while line.continues:
                yield line.receive(method.reply)

    @contextlib.contextmanager
    def _operate(self) -> Iterator[Connection]:
        """Connect for a question that the manager may take long to answer."""
        with self._connect(changes=True) as line:
            # A manager that hangs is found out here, before a wait that may have no end.
            status = line.converse(varlink.STATUS, varlink.AskStatus(sizes=False))
            if stranger := self._stranger(status):
                raise ControlError(
                    stranger,
                    means="it was asked nothing",
                    do=f"to ask it all the same, name it: --control {self.path}",
                )
            line.extend(self._timeout)
            line.asked = True
            yield line

    def _stranger(self, status: Status) -> str:
        read = status.manager.config
        if self._file is None or read is None or (read and is_same(Path(read), self._file)):
            return ""
        what = f"reads {read}" if read else "was started without a config file"
        return f"the manager at {self.path} {what}: {self._file} is not its config"

    @contextlib.contextmanager
    def _connect(self, *, changes: bool = False) -> Iterator[Connection]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            line = Connection(sock, self.path)
            line.changes = changes
            line.extend(LIVENESS_TIMEOUT if self._timeout is None else self._timeout)
            line.connect()
            yield line


# --- Where managers are found --------------------------------------------------------------------


def given_control(explicit: str | None) -> Path | None:
    """Return the control socket that was named by --control or in the environment."""
    given = explicit or os.environ.get(SOCKET_VARIABLE)
    return Path(given) if given else None


def find_control(explicit: str | None, name: str | None, file: Path | None = None) -> Path:
    """Return the control socket that is meant: the given one, that of `name`, or the only one.

    Of several with one name it is that of the manager that reads the config `file`.
    """
    if given := given_control(explicit):
        return given
    found = live_controls(name)
    if not found:
        wanted = f'named "{name}" in ' if name else "in "
        raise no_manager(wanted + ", ".join(map(str, _searched())), name)
    if len(found) > 1 and file:
        found = [path for path in found if _reads(path, file)] or found
    if len(found) > 1:
        raise ControlError(
            "several managers run here: " + ", ".join(str(path) for path in found),
            means="none was asked anything",
            do=f"name one with --control or {SOCKET_VARIABLE}"
            + (", or give its config with -c" if name is None else ""),
        )
    return found[0]


def check_length(path: Path) -> None:
    """Raise ControlError if one of the sockets beside this control socket has no room there."""
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
    """Return the control sockets in the usual places that answer, of any name or one."""
    pattern = "*.sock" if name is None else f"{name}.sock"
    found = [path for place in _searched() for path in sorted(place.glob(pattern))]
    return [path for path in found if _is_live(path)]


def _reads(path: Path, file: Path) -> bool:
    try:
        read = Client(path, timeout=LIVENESS_TIMEOUT).status(sizes=False).manager.config
    except SockmgrError:
        return False
    return bool(read) and is_same(Path(read or ""), file)


def is_same(one: Path, other: Path) -> bool:
    """Tell whether two paths are of one file, or are the same if there is none."""
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def possible_controls(explicit: str | None, name: str) -> list[Path]:
    """Return where the control socket of the manager called `name` would be looked for."""
    if given := given_control(explicit):
        return [given]
    return [place / f"{name}.sock" for place in _searched()]


def default_control(name: str, refused: Callable[[Path, str], None] | None = None) -> Path:
    """Return where the manager called `name` is to listen; make the directory if need be.

    `refused` is called with each directory that would be used, but is not ours alone, and why.
    """
    reasons = []
    for place in _places():
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
    """Say why a manager started here could not listen anywhere for its clients, "" if it could."""
    given = given_control(explicit)
    reasons = []
    for place in [given.absolute().parent] if given else _places():
        there = place if given or place.exists() else place.parent  # which it makes
        try:
            why = private.flaw(there) if there == place else ""
        except OSError as error:
            why = str(error.strerror)
        if not why and os.access(there, os.W_OK | os.X_OK, effective_ids=True):
            return ""
        reasons.append(f"{place}: {why or f'{there} cannot be written'}")
    return "; ".join(reasons)


def check_control(path: Path) -> None:
    """Raise ControlError if others could put something beside this control socket.

    What a manager finds there tells it what to run, as its own user.
    """
    try:
        flaw = private.flaw(path.parent)
    except OSError:  # the manager finds out by itself that it cannot listen there
        return
    if flaw:
        raise ControlError(
            f"cannot use {path} as control socket: {flaw}",
            means="nothing was started: whoever may write there could have us run anything",
            do="name a path in a directory that is yours alone: `mkdir -m 700 DIRECTORY`, "
            "--control DIRECTORY/NAME.sock",
        )


def _searched() -> list[Path]:
    places = [*_places(), Path(f"/run/user/{os.geteuid()}/sockmgr")]  # cron sets no variable
    # RuntimeDirectory= of further managers; one each, as systemd removes it with its service.
    places += sorted(Path("/run").glob("sockmgr-*"))
    with contextlib.suppress(FileNotFoundError):
        # In /tmp the name is anybody's to take, so what is not ours alone there does not count.
        if private.flaw(_fallback()):
            places.remove(_fallback())
    return list(dict.fromkeys(places))


def _fallback() -> Path:
    return Path(f"/tmp/sockmgr-{os.geteuid()}")  # noqa: S108


def _places() -> list[Path]:
    # systemd.exec(5): RUNTIME_DIRECTORY may hold several paths, separated by colons.
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")
    places = [Path(place) for place in given if place]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(runtime, "sockmgr"))
    return [*places, Path("/run/sockmgr"), _fallback()]


def _is_live(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:  # its backlog is full: somebody is there
            return True
        except OSError:
            return False
        return True


def _prepare(place: Path) -> str:
    """Make a directory for control sockets, if there is none; say what is wrong with it, if so."""
    above = place.parent.stat().st_uid
    if above not in (0, os.geteuid()):  # su(1) keeps XDG_RUNTIME_DIR, and it may be made anew
        return f"{place.parent} belongs to another user ({above})"
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
        if os.geteuid() == 0:
            # Workers of other users must reach the notify socket; all else there is root's only.
            place.chmod(0o711)
    if flaw := private.flaw(place):
        return flaw
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it cannot be written")
    return ""
