"""A real `sockmgr run`, started, asked and ended by a test. Leaves no process behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sockmgr.api.records import event
from sockmgr.kernel import unix_table
from sockmgr.torture.server import end_marked, marked, marked_environment
from tests.e2e.apps import ROOT
from tests.helpers.load import Target

BIN = Path(sys.executable).parent
T = TypeVar("T")


def wait_for(look: Callable[[], T | None], what: str, *, timeout: float = 30.0) -> T:
    """Look again and again until there is something to see, and return it."""
    deadline = time.monotonic() + timeout
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(0.02)


def varlink(path: Path, method: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Call one method: a client of its own, so that the manager is not asked by its own code."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        call = {"method": f"io.sockmgr.Manager.{method}", "parameters": dict(parameters or {})}
        sock.sendall(json.dumps(call).encode() + b"\0")
        answer = b""
        while not answer.endswith(b"\0"):
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError(f"{path}: closed before the answer to {method}")
            answer += piece
    reply = json.loads(answer[:-1])
    if "error" in reply:
        raise RuntimeError(f"{reply['error']}: {reply.get('parameters')}")
    found: dict[str, Any] = reply["parameters"]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What one command of the command line answered, and when it ended (time.monotonic())."""

    code: int
    stdout: str
    stderr: str
    began_at: float
    ended_at: float

    @property
    def answer(self) -> Any:
        """The JSON on standard output."""
        return json.loads(self.stdout)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended_at - self.began_at


class Manager:
    """One `sockmgr run` with its own directory and control socket.

    Entering starts it and waits until every service serves; leaving stops it and ends by their
    pids whatever processes are left of it.
    """

    def __init__(
        self,
        directory: Path,
        config: str,
        *,
        env: Mapping[str, str] | None = None,
        serving_timeout: float = 30.0,
        code: Path = ROOT,
        under: Sequence[str] = (),
    ) -> None:
        """Write the config; `code` is the directory that has the package sockmgr to run, `under` a
        command that becomes the manager, as setpriv(1) does."""
        self.directory, self._code, self._under = directory, code, under
        self.config = directory / "sockmgr.toml"
        self.control = directory / "control.sock"
        self._log = directory / "stderr.log"
        # Without bytecode: two versions of a file within a second have one time stamp and size.
        self._env = marked_environment({"PYTHONDONTWRITEBYTECODE": "1", **(env or {})})
        self._serving_timeout = serving_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self.config.write_text(config)

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_serving()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self.log, file=sys.stderr)
        self.close()

    # --- the process -----------------------------------------------------------------------

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """Start the manager, with more in its environment `env`; it need not serve yet."""
        argv = [*self._under, *self._command("run"), "-c", str(self.config), *arguments]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, cwd=self._code, env={**self._env, **(env or {})}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The manager's pid."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the manager runs."""
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the manager to end by itself; return its exit status."""
        assert self._process is not None
        return self._process.wait(timeout)

    @property
    def keeper(self) -> int:
        """The pid of the keeper that was started last."""
        return int(re.findall(r"keeper started pid=(\d+)", self.log)[-1])

    def kill9(self, *, keeper: bool = False) -> None:
        """Kill the manager, and only it, as the OOM killer would; or its keeper as well."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        if keeper:
            os.kill(self.keeper, signal.SIGKILL)

    def close(self) -> None:
        """Stop the manager, gracefully if it lets us, and end everything it left."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        end_marked(self._env)

    def leftovers(self) -> list[int]:
        """Return the pids, but for the manager's, of all that descends from this run."""
        own = self._process.pid if self._process is not None and self.alive else 0
        return [pid for pid in marked(self._env) if pid != own]

    # --- the command line ------------------------------------------------------------------

    def run(
        self, verb: str, *arguments: str, timeout: float = 60.0, under: Sequence[str] = ()
    ) -> Done:
        """Run one verb of the command line against this manager, with --json."""
        return self.say(verb, "--json", *arguments, timeout=timeout, under=under)

    def say(
        self, verb: str, *arguments: str, timeout: float = 60.0, under: Sequence[str] = ()
    ) -> Done:
        """Run one verb of the command line against this manager, as a person does."""
        began_at = time.monotonic()
        done = subprocess.run(
            [*under, *self._command(verb), *arguments],
            cwd=ROOT, env=self._env, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        return Done(
            code=done.returncode, stdout=done.stdout, stderr=done.stderr,
            began_at=began_at, ended_at=time.monotonic(),
        )  # fmt: skip

    def reload(self, *arguments: str, timeout: float = 60.0) -> Done:
        """Reload through the command line and wait for the verdict."""
        return self.run("reload", *arguments, timeout=timeout)

    def stop(self, *arguments: str) -> int:
        """Stop through the command line; return the manager's exit status."""
        done = self.run("stop", *arguments)
        assert done.code == 0, done.stderr
        return self.wait()

    def _command(self, verb: str) -> Sequence[str]:
        return [sys.executable, "-m", "sockmgr", verb, "--control", str(self.control)]

    # --- what it tells ---------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Ask the manager, over its control socket, for its status."""
        return varlink(self.control, "Status")

    def wait_serving(self) -> None:
        """Wait until every service serves; fail at once if the manager ends."""

        def serving() -> bool:
            if not self.alive:
                raise AssertionError(f"the manager ended with {self.wait()}:\n{self.log}")
            try:
                services = self.status()["services"].values()
            except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
                return False
            return all(service["state"] == "serving" for service in services)

        wait_for(serving, f"the services to serve; the log says:\n{self.log}",
                 timeout=self._serving_timeout)  # fmt: skip

    def wait_unasked(self) -> None:
        """Wait until the manager has closed its connections to all who have asked it something."""

        def is_unasked() -> bool:
            named = [row for row in unix_table.rows() if row.name == str(self.control)]
            return all(row.listens for row in named)

        wait_for(is_unasked, "the manager to close the connections of commands")

    def workers(self, service: str = "web") -> list[dict[str, Any]]:
        """Return the workers of a service, as the status tells."""
        found: list[dict[str, Any]] = self.status()["services"][service]["workers"]
        return found

    def target(self, listener: str = "http") -> Target:
        """Return where a listener is, with the port that the kernel chose."""
        scheme, _, rest = self.status()["listeners"][listener]["address"].partition("://")
        if scheme == "unix":
            return Target.at_path(rest)
        return Target.at_url(f"http://{rest}")

    def events(self, kind: str, **fields: str) -> list[dict[str, Any]]:
        """Return the events of a kind that have these fields, as far as the manager keeps them."""
        try:
            found = varlink(self.control, "Events")["events"]
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            return []
        wanted = {"event": event(kind), **fields}
        return [one for one in found if wanted.items() <= (one | one["fields"]).items()]

    @property
    def log(self) -> str:
        """Everything that the manager and its workers wrote to standard error so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""
