"""A real `sockmgr top` on a pseudo-terminal, whose screen is read as a person sees it."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyte

from tests.e2e.apps import ROOT

_LAUNCH = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Top:
    """One `sockmgr top`, at this control socket; in a `shell`, if said. Leaving kills it."""

    def __init__(
        self,
        control: Path,
        *arguments: str,
        columns: int = 80,
        lines: int = 24,
        env: Mapping[str, str] | None = None,
        shell: bool = False,
    ) -> None:
        argv = [sys.executable, "-m", "sockmgr", "top", "--control", str(control), *arguments]
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._main, self._side = pty.openpty()
        termios.tcsetwinsize(self._side, (lines, columns))
        self._settings = termios.tcgetattr(self._side)
        # The size is the terminal's own, whatever readline exported to whoever runs the tests.
        context = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *(("/bin/bash", "--norc", "-i") if shell else argv)],
            stdin=self._side, stdout=self._side, stderr=self._side, cwd=ROOT,
            start_new_session=True, env={**context, "TERM": "xterm", "PS1": "$ ", **(env or {})},
        )  # fmt: skip
        if shell:
            self.see(r"^\$")
            self.press(f"{shlex.join(argv)}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self.text, file=sys.stderr)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for fd in (self._main, self._side):
            if fd >= 0:
                os.close(fd)

    # --- What a person does ----------------------------------------------------------------

    def press(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._main, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self._screen.resize(lines, columns)
        termios.tcsetwinsize(self._side, (lines, columns))
        self.process.send_signal(signal.SIGWINCH)  # as the kernel does for its controlling terminal

    def hang_up(self) -> None:
        """Close the terminal's window."""
        os.close(self._side)
        os.close(self._main)
        self._side = self._main = -1

    def wait(self) -> int:
        """Read until it ends; return its exit status."""
        deadline = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.returncode

    # --- What there is to see --------------------------------------------------------------

    @property
    def rows(self) -> list[str]:
        """The screen, row by row."""
        return [row.rstrip() for row in self._screen.display]

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(self.rows)

    def see(self, pattern: str, *, timeout: float = 30.0) -> re.Match[str]:
        """Read until the screen has a text that matches."""
        return self._until(
            lambda: re.compile(pattern, re.MULTILINE).search(self.text), repr(pattern), timeout
        )

    def see_no(self, pattern: str) -> None:
        """Read until the screen has no such text."""
        found = re.compile(pattern, re.MULTILINE)
        self._until(lambda: not found.search(self.text), f"no {pattern!r}", 30.0)

    def see_the_shell(self) -> None:
        """Read until the shell has its screen and the cursor again."""
        self._until(self.has_left_the_screen, "the shell", 30.0)

    def reversed_row(self) -> str:
        """Return the row that is shown in reverse, "" if none is."""
        for number, row in enumerate(self._screen.display):
            if self._screen.buffer[number][0].reverse:
                return str(row).rstrip()
        return ""

    def colours(self) -> set[str]:
        """Return the colours on the screen."""
        return {cell.fg for row in self._screen.buffer.values() for cell in row.values()}

    def is_given_back(self) -> bool:
        """Tell whether the terminal is as it was: settings, screen, cursor."""
        return termios.tcgetattr(self._side) == self._settings and self.has_left_the_screen()

    def has_left_the_screen(self) -> bool:
        """Tell whether the shell's screen and the cursor are shown."""
        shown, hidden = self.raw.rfind(b"\x1b[?25h"), self.raw.rfind(b"\x1b[?25l")
        left, taken = self.raw.rfind(b"\x1b[?1049l"), self.raw.rfind(b"\x1b[?1049h")
        return shown > hidden and left > taken

    def takes_keys(self) -> bool:
        """Tell whether single keys are read, without an echo."""
        return not termios.tcgetattr(self._side)[3] & (termios.ICANON | termios.ECHO)

    def _until(self, look: Callable[[], Any], what: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while not (found := look()):
            if self.process.poll() is not None and not self._read(0):
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.text}")
            assert time.monotonic() < deadline, f"waited for {what} in:\n{self.text}"
            self._read(0.1)
        return found

    def _read(self, timeout: float) -> bool:
        if not select.select([self._main], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._main, 65536)
        except OSError:  # EIO: nobody has the other side any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
