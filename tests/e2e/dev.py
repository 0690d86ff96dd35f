"""A real `sockmgr dev` in a pseudo-terminal of its own, driven as a developer does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.apps import ROOT
from tests.e2e.harness import end_marked, marked, marked_environment, varlink, wait_for
from tests.helpers.load import Target

_SGR = re.compile(r"\x1b\[[0-9;]*m")
_ESCAPE = re.compile(r"\x1b")


class Dev:
    """One `sockmgr dev`, whose screen can be read and whose keys can be pressed.

    With `terminal=False` its standard error is a pipe.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        columns: int = 100,
        terminal: bool = True,
        env: Mapping[str, str] | None = None,
        control: Path | None = None,
    ) -> None:
        self.directory = directory
        self.control = control or directory / "control.sock"
        self._argv = [
            sys.executable, "-m", "sockmgr", "dev", "--control", str(self.control), *arguments,
        ]  # fmt: skip
        ours = {"PYTHONDONTWRITEBYTECODE": "", "NO_COLOR": "", "TERM": "xterm"}
        self._env = marked_environment({"PYTHONPATH": str(ROOT), **ours, **(env or {})})
        self._columns, self._terminal = columns, terminal
        self._raw = bytearray()
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        try:
            self.start()
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
            print(self.text, file=sys.stderr)
        self.close()

    def start(self) -> None:
        """Start it, as the leader of the terminal's session."""
        if self._terminal:
            self._ours, its = os.openpty()
            fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self._columns, 0, 0))
            self.tty = os.dup(its)
            launcher = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            launcher += "os.execv(sys.argv[1], sys.argv[1:])"
            argv, stdin = [sys.executable, "-c", launcher, *self._argv], its
        else:
            self._ours, its = os.pipe()
            argv, stdin = self._argv, subprocess.DEVNULL
        self.process = subprocess.Popen(
            argv, cwd=self.directory, env=self._env, stdin=stdin, stdout=its, stderr=its,
            start_new_session=True,
        )  # fmt: skip
        os.close(its)
        self._wake, self._woken = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """End it and all it left."""
        if hasattr(self, "process"):
            if self.process.poll() is None:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(10)
            self.process.kill()
            self.process.wait()
        end_marked(self._env)
        if hasattr(self, "tty"):
            os.close(self.tty)
            del self.tty
        self._stop_reading()

    # --- What a developer does -------------------------------------------------------------

    def press(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._ours, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal's window."""
        os.close(self.tty)
        del self.tty
        self._stop_reading()

    def close_pipe(self) -> None:
        """Read no more of what it writes."""
        self._stop_reading()

    def kill9(self) -> None:
        """Kill dev, and only it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait(self, timeout: float = 20.0) -> int:
        """Wait until it has ended; return its exit status."""
        return self.process.wait(timeout)

    # --- What there is to see --------------------------------------------------------------

    @property
    def raw(self) -> str:
        """All that was written, colours and all."""
        return self._raw.decode(errors="replace")

    @property
    def text(self) -> str:
        """All that was written, as it is read."""
        return _SGR.sub("", self.raw).replace("\r\n", "\n")

    def see(self, pattern: str, *, after: int = 0, timeout: float = 20.0) -> re.Match[str]:
        """Wait until the screen has a text that matches, behind so many characters."""

        def look() -> re.Match[str] | None:
            found = re.compile(pattern, re.MULTILINE).search(self.text, after)
            if found is None and self.process.poll() is not None:
                raise AssertionError(f"dev ended with {self.process.poll()}:\n{self.text}")
            return found

        return wait_for(look, f"{pattern!r} in:\n{self.text}", timeout=timeout)

    def leftovers(self) -> list[int]:
        """Return the pids of all that descends from it, without itself."""
        alive = self.process.poll() is None
        return [pid for pid in marked(self._env) if not (alive and pid == self.process.pid)]

    def wait_for_nothing_left(self) -> None:
        """Wait until no process descends from it."""
        wait_for(lambda: not self.leftovers(), f"{self.leftovers()} to end", timeout=10)

    def status(self) -> dict[str, Any]:
        """Ask its control socket."""
        return varlink(self.control, "Status")

    def target(self) -> Target:
        """Return where it listens."""
        found = self.see(r"serves on (http://\S+)|--never--")
        return Target.at_url(found[1])

    def address(self, listener: str = "http") -> tuple[str, int]:
        """Return host and port of a listener, also while nothing serves."""

        def look() -> str:
            with contextlib.suppress(OSError, KeyError):
                return str(self.status()["listeners"][listener]["address"])
            return ""

        url = wait_for(look, f"the control socket; the screen says:\n{self.text}")
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        return host, int(port)

    def get(self, *headers: str, timeout: float = 20.0) -> str:
        """Send one request on a connection of its own; return the whole answer."""
        lines = ("GET / HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", "")
        with socket.create_connection(self.address(), timeout=timeout) as sock:
            sock.sendall("\r\n".join(lines).encode())
            answer = b""
            while data := sock.recv(65536):
                answer += data
        return answer.decode()

    def wait_answer(self, part: str) -> float:
        """Ask until the answer has `part`; return the time.monotonic() of that."""
        while part not in self.get():
            time.sleep(0.001)
        return time.monotonic()

    def _stop_reading(self) -> None:
        if hasattr(self, "_reader"):
            os.close(self._wake)
            self._reader.join()  # a thread in read(2) would keep the terminal open
            del self._reader
            os.close(self._woken)
            os.close(self._ours)

    def _read(self) -> None:
        while self._woken not in select.select([self._ours, self._woken], [], [])[0]:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # EIO: no process has the terminal any more
                return
            if not data:
                return
            self._raw += data
