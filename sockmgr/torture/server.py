"""The server under torture: starts it, runs the commands about it, and ends all that came of it.

Owns its processes and the file with what they print. Decides nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sockmgr.errors import ConfigError
from sockmgr.kernel import connections, procfs
from sockmgr.torture.plan import fill

COMMAND_TIMEOUT = 60.0  # seconds for a command such as that which reloads
SETTLE_TIMEOUT = 6.0  # seconds that the workers may take after the first of them has answered
LOOK = 0.25  # seconds between two looks at processes that start
QUIET = 0.03  # seconds of processor time between two looks: nobody boots any more
MARK = "MARKED_SOCKMGR_RUN"  # workers inherit no SOCKMGR_*
END_TIMEOUT = 30.0  # seconds in which the kernel ends a process that was killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One command that was run: when, and how it ended. Instants are of time.monotonic()."""

    code: int
    said: str
    told_at: float


class Server:
    """One server at a port of 127.0.0.1. Entering starts it; leaving kills whatever is left."""

    def __init__(
        self, command: Sequence[str], port: int, *, home: Path, cwd: Path, start_timeout: float
    ) -> None:
        """`home` is a directory for what is ours, and {dir}; the server runs in `cwd`."""
        self.port, self._home, self._cwd = port, home, cwd
        self._argv = [fill(word, port=port, dir=home) for word in command]
        self._start_timeout = start_timeout
        self._env = marked_environment({"PYTHONDONTWRITEBYTECODE": "1"})
        self._log = home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[int, int] = {}  # pid -> start: a pid is reused, but not with its start
        self._sessions: set[int] = set()

    def __enter__(self) -> Server:
        if self.is_open():
            raise ConfigError(
                f"somebody listens on port {self.port} already",
                means="so what answers there would not be the server that is tortured",
                do='see "ss -ltnp" for who it is, stop it, or take another port',
            )
        try:
            self._log.write_bytes(b"")
            self.start()
            self.wait_answering()
            self._settle()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the command; it need not serve yet when this returns. Raises ConfigError."""
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._argv, cwd=self._cwd, env=self._env, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, start_new_session=True,
                )  # fmt: skip
            self._sessions.add(self._process.pid)
        except OSError as error:
            raise ConfigError(
                f"cannot start {self._argv[0]}: {error.strerror}", do="correct the command"
            ) from error

    def close(self) -> None:
        """Kill all that was started, and all that it has started."""
        # A process that writes its own title, as Puma does, may have lost the mark by that.
        self._remember(each for each in procfs.everybody() if each.session in self._sessions)
        while left := self.processes():
            for pid in left:
                self.signal(pid, signal.SIGKILL)
            time.sleep(0.02)
        end_marked(self._env)
        if self._process is not None:
            self._process.wait()

    # --- what it is ------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The pid of the process that was started last."""
        return self._process.pid if self._process is not None else 0

    @property
    def ended(self) -> int | None:
        """The exit status of that process, None while it runs."""
        return self._process.poll() if self._process is not None else None

    def processes(self) -> list[int]:
        """Return the pids of what descends from it, or once did: some outlive their parent."""
        seen = set(procfs.tree(self.pid)) if self._process is not None else set[int]()
        self._remember(each for pid in seen if (each := procfs.member(pid)))
        return sorted(self._known)

    def _remember(self, members: Iterable[procfs.Member]) -> None:
        self._known |= {each.pid: each.started for each in members}
        alive = {pid: member for pid in self._known if (member := procfs.member(pid))}
        self._known = {p: s for p, s in self._known.items() if p in alive and alive[p].started == s}

    def connections(self) -> dict[int, frozenset[int]]:
        """Return the client's ports of the connections that each process holds, if it holds any."""
        clients = connections.clients_of(self.port)
        held = {pid: procfs.sockets_of(pid) & clients.keys() for pid in self.processes()}
        return {pid: frozenset(map(clients.__getitem__, one)) for pid, one in held.items() if one}

    def last_words(self, number: int = 5) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n  ".join(text.splitlines()[-number:]) or "it printed nothing"

    # --- what is done to it ----------------------------------------------------------------

    def run(self, line: str, **values: object) -> Done:
        """Run a line by a shell, and wait for its end."""
        line = fill(line, pid=self.pid, port=self.port, dir=self._home, **values)
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", line], cwd=self._cwd, env=self._env, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, errors="replace", timeout=COMMAND_TIMEOUT,
                check=False,
            )  # fmt: skip
            code, said = done.returncode, (done.stderr + done.stdout).strip()
        except subprocess.TimeoutExpired:
            code, said = -1, f"it has not ended after {COMMAND_TIMEOUT:g} s"
        return Done(code=code, said=said, told_at=time.monotonic())

    def freeze(self, pid: int) -> frozenset[int]:
        """Stop a process by SIGSTOP, and return the client's ports of the connections it holds."""
        os.kill(pid, signal.SIGSTOP)
        _wait(lambda: procfs.is_stopped(pid) or not procfs.member(pid), COMMAND_TIMEOUT)
        return self.connections().get(pid, frozenset())

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to one of its processes, which may be gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def wait_ended(self, timeout: float) -> bool:
        """Wait for the end of the process that was started; return whether it has ended."""
        return _wait(lambda: self.ended is not None, timeout)

    # --- whether it serves -----------------------------------------------------------------

    def is_open(self) -> bool:
        with socket.socket() as sock:
            sock.settimeout(1)
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def answer(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Return status and body of the answer to one request; raise OSError or HTTPException."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            client.request("POST" if body else "GET", path, body, headers)
            response = client.getresponse()
            return response.status, b"" if response.status == 101 else response.read()
        finally:
            client.close()

    def wait_answering(self) -> None:
        """Wait until it answers; raise ConfigError if it ends instead, or takes too long."""

        def answers() -> bool:
            if self.ended is not None:
                raise ConfigError(
                    f"the server ended with {self.ended} before it answered on port {self.port}",
                    means=self.last_words(),
                    do=f"try it by hand: {' '.join(self._argv)}",
                )
            with contextlib.suppress(OSError, http.client.HTTPException):
                return bool(self.answer("/"))
            return False

        if not _wait(answers, self._start_timeout):
            raise ConfigError(
                f"nobody answers on port {self.port} after {self._start_timeout:g} s",
                means=self.last_words(),
                do="does the command listen there? correct --port, or raise --start-timeout",
            )

    def _settle(self) -> None:
        """Wait until its processes boot no more: no server tells when all its workers serve."""
        looks: list[tuple[list[int], float]] = []

        def is_quiet() -> bool:
            pids = self.processes()
            looks.append((pids, sum(map(procfs.cpu_time, pids))))
            time.sleep(LOOK)
            last = looks[-3:]
            pace = [later[1] - sooner[1] for sooner, later in itertools.pairwise(last)]
            return len(last) == 3 and last[0][0] == pids and all(each < QUIET for each in pace)

        _wait(is_quiet, SETTLE_TIMEOUT)


def _wait(look: Callable[[], bool], timeout: float) -> bool:
    """Look again and again; return whether there was something to see before the time was over."""
    end = time.monotonic() + timeout
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# --- All that a process started is found by its environment, whatever became of the parents -------


def marked_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with `more` and a mark, by which all that inherits it is found."""
    return {**os.environ, **more, MARK: uuid.uuid4().hex}


def marked(env: Mapping[str, str]) -> list[int]:
    mark = f"{MARK}={env[MARK]}".encode()
    return [each.pid for each in procfs.everybody() if mark in _environment(each.pid)]


def end_marked(env: Mapping[str, str]) -> None:
    """Kill every process that inherited this marked environment; return when all are gone."""
    deadline = time.monotonic() + END_TIMEOUT
    killed = set[int]()
    while left := {*marked(env), *filter(procfs.member, killed)}:
        for pid in left - killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # One that is ending has its sockets for longer than its environment.
        killed |= left
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {END_TIMEOUT:g} s for the last processes to end")
        time.sleep(0.02)


def _environment(pid: int) -> bytes:
    """Return the environment a process was started with; empty for what is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
