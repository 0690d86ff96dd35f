"""A program on a pseudo-terminal, as a person has it: keys in, what is on the screen out."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

# CSI and OSC sequences, charsets and keypad modes: ECMA-48, ctlseqs of xterm.
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78M])"
)
# The terminal must be the controlling one, or a shell has no job control and says so.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """One program and the terminal it runs on, 40 lines of 120 columns. Leaving kills it."""

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._main, side = pty.openpty()
        termios.tcsetwinsize(side, (40, 120))
        self._program = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *argv],
            stdin=side, stdout=side, stderr=side, cwd=cwd, start_new_session=True,
            env={**os.environ, "TERM": "xterm", **(env or {})},
        )  # fmt: skip
        os.close(side)
        self._said = b""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._program.poll() is None:
            os.killpg(self._program.pid, signal.SIGKILL)
        self._program.wait()
        os.close(self._main)

    @property
    def screen(self) -> str:
        """Everything shown so far, as lines of text without colours and movements."""
        text = _ESCAPE.sub("", self._said.decode(errors="replace"))
        return re.sub(r"\r+\n?", "\n", text)

    @property
    def raw(self) -> str:
        """Everything shown so far, as it was sent."""
        return self._said.decode(errors="replace")

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._main, keys.encode())

    def wait_for(self, pattern: str, *, timeout: float = 30.0) -> str:
        """Read until `pattern` is shown, behind what was waited for before; return its match."""
        deadline = time.monotonic() + timeout
        while not (found := re.compile(pattern, re.MULTILINE).search(self.screen, self._seen)):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{pattern!r} was not shown, but:\n{self.screen}")
        self._seen = found.end()
        return found[0]

    def wait(self) -> int:
        """Read until the program ends; return its exit status."""
        while self._read(30.0):
            pass
        return self._program.wait(30)

    def _read(self, timeout: float) -> bool:
        if not select.select([self._main], [], [], timeout)[0]:
            return False
        try:
            piece = os.read(self._main, 65536)
        except OSError:  # EIO: nobody has the other side any more, see pty(7)
            return False
        self._said += piece
        return bool(piece)
