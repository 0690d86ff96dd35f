"""The caller's side of the control socket: find a manager, ask it, wait for its answer.

One plain blocking socket a question, so that commands start fast. Never waits without an end
unless it is told to, never reads more than a bound, and starts nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from sockmgr.core import varlink
from sockmgr.core.errors import ControlError, SockmgrError
from sockmgr.core.report import Plan, Progress, Status, Verdict
from sockmgr.kernel import private

SOCKET_VARIABLE = "SOCKMGR_CONTROL"
LONGEST_REPLY = 16 * 1024 * 1024
LIVENESS_TIMEOUT = 10.0

_Answer = TypeVar("_Answer", bound=varlink.Answer)


class NoManagerError(ControlError):
    """Nobody answers there."""


class ForbiddenError(ControlError):
    """Somebody answers there, and we may not ask."""


class StillWaitingError(ControlError):
    """The answer did not come in time; what was asked goes on."""


class LostError(ControlError):
    """The connection ended before the answer."""


class Client:
    """Asks the manager at one control socket.

    `timeout` is for each question; without one, an operation may take as long as it needs.
    """

    def __init__(self, path: Path, *, timeout: float | None = None) -> None:
        self.path = path
        self._timeout = timeout

    def peer(self) -> int:
        """Return the pid under which we see who listens for the manager, 0 if we cannot."""
        with self._connect() as line:
            return line.peer

    def status(self, *, sizes: bool = True) -> Status:
        """Return what runs; without `sizes`, which cost the manager most, the `rss` is 0."""
        return self._ask(varlink.AskStatus(sizes=None if sizes else False), Status)

    def plan(self, text: str | None = None, file: str | None = None) -> Plan:
        """Return what the config `text` of `file` would change (None: what a reload would)."""
        return self._ask(varlink.AskPlan(text=text, file=file), Plan)

    def scale(self, service: str, workers: int, *, relative: bool) -> int:
        """Want this many workers, or so many more; return the number when they are ready."""
        ask = varlink.AskScale(service=service, workers=workers, relative=relative)
        with self._operate() as line:
            return line.converse(ask, varlink.Scaled).workers

    def restart_worker(self, worker: str) -> str:
        """Replace one worker (`web@7.2`); return its successor's name when that is done."""
        with self._operate() as line:
            return line.converse(
                varlink.AskRestartWorker(worker=worker), varlink.Restarted
            ).successor

    def upgrade(self) -> str:
        """Have the manager replace its code; return which version it had. Connect again then."""
        with self._operate() as line:
            return line.converse(varlink.AskUpgrade(), varlink.Upgrading).version

    def stop(self, *, now: bool) -> None:
        """Stop the manager; return when no worker is left."""
        with self._operate() as line:
            line.converse(varlink.AskStop(now=now), varlink.Stopped)

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
        return self._ask(varlink.AskLogs(service=service or None, lines=lines), varlink.Logged)

    def follow_logs(self, service: str, lines: int) -> Iterator[varlink.Logged]:
        """Yield the same, then what comes, until the manager leaves."""
        ask = varlink.AskLogs(service=service or None, lines=lines)
        yield from self._follow(ask, varlink.Logged)

    def events(
        self, service: str = "", *, after: int | None = None, last: int | None = None
    ) -> varlink.Happened:
        """Return the last events (None: all) about one service or any, or those `after` an id."""
        ask = varlink.AskEvents(service=service or None, after=after, last=last)
        return self._ask(ask, varlink.Happened)

    def follow_events(
        self, service: str = "", *, after: int | None = None, last: int | None = None
    ) -> Iterator[varlink.Happened]:
        """Yield the same, then what comes, until the manager leaves."""
        ask = varlink.AskEvents(service=service or None, after=after, last=last)
        yield from self._follow(ask, varlink.Happened)

    def _follow(self, ask: varlink.Ask, kind: type[_Answer]) -> Iterator[_Answer]:
        with self._connect() as line:
            line.send(ask, more=True)
            yield line.receive(kind)
            line.extend(self._timeout)
            while line.continues:
                yield line.receive(kind)

    def _ask(self, ask: varlink.Ask, kind: type[_Answer]) -> _Answer:
        with self._connect() as line:
            return line.converse(ask, kind)

    @contextlib.contextmanager
    def _operate(self) -> Iterator[_Line]:
        """Connect for a question that the manager may take long to answer."""
        with self._connect() as line:
            # One that hangs is found out here, before a wait that may have no end.
            line.converse(varlink.GetInfo(), varlink.Info)
            line.extend(self._timeout)
            yield line

    @contextlib.contextmanager
    def _connect(self) -> Iterator[_Line]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            line = _Line(sock, self.path)
            line.extend(LIVENESS_TIMEOUT if self._timeout is None else self._timeout)
            line.connect()
            yield line


class _Line:
    """One connection: whole messages out and in, until a deadline."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self._socket = sock
        self._path = path
        self._received = bytearray()
        self._deadline: float | None = None
        self.continues = False  # whether the last reply says that more will come

    @property
    def peer(self) -> int:
        """The pid of whoever called listen(2), in our own PID namespace: unix(7), SO_PEERCRED."""
        size = struct.calcsize("3i")
        data = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", data)[0])

    def extend(self, timeout: float | None) -> None:
        """Wait for `timeout` seconds from now, or without an end."""
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def connect(self) -> None:
        try:
            # unix(7): connect(2) waits for room in the backlog as long as SO_SNDTIMEO says, but
            # only on a blocking socket, so settimeout() would give up at once.
            if (left := self._left()) is not None:
                limit = struct.pack("ll", int(left), int(left % 1 * 1e6))
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._socket.connect(os.fspath(self._path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise no_manager(f"at {self._path}", None, self._path) from None
        except PermissionError:
            raise ForbiddenError(
                f"user {os.geteuid()} may not talk to the manager at {self._path}",
                means="it was not asked",
                do="run this as the user it runs as, or as root",
            ) from None
        except OSError as error:
            raise self._lost(error) from error

    def converse(self, ask: varlink.Ask, kind: type[_Answer]) -> _Answer:
        self.send(ask)
        return self.receive(kind)

    def send(self, ask: varlink.Ask, *, more: bool | None = None) -> None:
        message = varlink.write_call(ask, more=more)
        if len(message) > varlink.LONGEST_CALL:
            raise ControlError(
                f"{len(message)} bytes are more than the manager at {self._path} reads at once",
                means="it was not asked",
            )
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(message)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has hung up, but may have said why: receive() finds out
        except OSError as error:
            raise self._lost(error) from error

    def receive(self, kind: type[_Answer]) -> _Answer:
        message = self._message()
        try:
            reply = msgspec.json.decode(message, type=varlink.Reply)
            if reply.error is not None:
                raise self._refused(reply)
            self.continues = bool(reply.continues)
            return msgspec.json.decode(reply.parameters, type=kind)
        except (ValueError, RecursionError) as error:
            raise ControlError(
                f"the answer from {self._path} cannot be understood: {error}",
                do="is it a sockmgr of another version? see its pid in `ss -xlp`",
            ) from error

    def _message(self) -> bytes:
        while (end := self._received.find(b"\0")) < 0:
            try:
                self._socket.settimeout(self._left())
                data = self._socket.recv(65536)
            except OSError as error:
                raise self._lost(error) from error
            if not data:
                raise self._lost(ConnectionResetError("it hung up"))
            self._received += data
            if len(self._received) > LONGEST_REPLY:
                raise self._lost(ConnectionAbortedError("its answer has no end"))
        message = bytes(self._received[:end])
        del self._received[: end + 1]
        return message

    def _left(self) -> float | None:
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _lost(self, error: OSError) -> ControlError:
        # Of connect(2), EAGAIN means that SO_SNDTIMEO has passed.
        if isinstance(error, TimeoutError | BlockingIOError):
            return StillWaitingError(
                f"the manager at {self._path} did not answer in time",
                means="what it was asked to do goes on",
                do='see "sockmgr status", or wait longer with --timeout',
            )
        return LostError(
            f"no answer from the manager at {self._path}: {error.strerror or error}",
            means="what it was asked to do may have happened",
            do='see "sockmgr status" and the log of the manager',
        )

    def _refused(self, reply: varlink.Reply) -> SockmgrError:
        name = reply.error or ""
        if kind := varlink.ERRORS.get(name):
            failure = msgspec.json.decode(reply.parameters, type=varlink.Failure)
            return kind(failure.what, means=failure.means, do=failure.do)
        if name == f"{varlink.SERVICE}.PermissionDenied":
            return ControlError(
                f"the manager at {self._path} does not talk to user {os.geteuid()}",
                do="run this as the user it runs as, or as root",
            )
        return ControlError(
            f"the manager at {self._path} refused: {name} {bytes(reply.parameters).decode()}",
            do="is it a sockmgr of another version?",
        )


# --- Where managers are found --------------------------------------------------------------------


def given_control(explicit: str | None) -> Path | None:
    """Return the control socket that was named by --control or in the environment."""
    given = explicit or os.environ.get(SOCKET_VARIABLE)
    return Path(given) if given else None


def find_control(explicit: str | None, name: str | None) -> Path:
    """Return the control socket that is meant: the given one, that of `name`, or the only one."""
    if given := given_control(explicit):
        return given
    places = _searched()
    pattern = "*.sock" if name is None else f"{name}.sock"
    found = [path for place in places for path in sorted(place.glob(pattern)) if _is_live(path)]
    if not found:
        wanted = f'named "{name}" in ' if name else "in "
        raise no_manager(wanted + ", ".join(str(place) for place in places), name)
    if len(found) > 1 and name is None:
        raise ControlError(
            "several managers run here: " + ", ".join(str(path) for path in found),
            means="none was asked anything",
            do=f"name one with --control or {SOCKET_VARIABLE}, or give its config with -c",
        )
    return found[0]


def possible_controls(explicit: str | None, name: str) -> list[Path]:
    """Return where the control socket of the manager called `name` would be looked for."""
    if given := given_control(explicit):
        return [given]
    return [place / f"{name}.sock" for place in _searched()]


def default_control(name: str, refused: Callable[[Path, str], None] | None = None) -> Path:
    """Return where the manager called `name` is to listen; make the directory if need be.

    `refused` is told of each place that would have been it, but is not ours alone, and why.
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


def no_manager(where: str, name: str | None, asked: Path | None = None) -> NoManagerError:
    """Return the error for where nobody answers; tell of the managers that do not answer us.

    Of those called `name` (None: all) in the usual places, or of the one `asked` for.
    """
    from sockmgr.elsewhere import elsewhere  # noqa: PLC0415 - only who finds nobody needs it

    there = list(elsewhere(name, asked))
    return NoManagerError(
        f"no manager answers {where}",
        means="; ".join(f"{one.what}: {one.do}" for one in there),
        do='start one with "sockmgr run", or say where it is with --control' if not there else "",
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
