"""Reads single keys from a terminal. Owns the terminal's settings from `open` to `close`.

It reads only while this process is in the foreground of the terminal, because the shell and its
other jobs share the terminal. Decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import termios
from collections.abc import Callable, Iterator

# A sequence (ECMA-48: any number of parameters, then one final byte from @ to ~) or a character.
_KEY = re.compile(r"\x1b[\[O][^@-~]*[@-~]|.", re.DOTALL)
_ARROWS = {"A": "up", "B": "down"}  # CSI A and SS3 A: ctlseqs of xterm


def strokes(typed: str) -> Iterator[str]:
    """Yield the keys that were typed: `up`, `down` or a character; no other sequence."""
    for key in _KEY.findall(typed):
        if stroke := key if len(key) == 1 else _ARROWS.get(key[-1]):
            yield stroke


class Keys:
    """Calls `pressed` with each key that is typed, and `lost` when the terminal has hung up.

    The descriptor is borrowed.
    """

    def __init__(self, fd: int, pressed: Callable[[str], None], lost: Callable[[], None]) -> None:
        """Remember the settings of the terminal `fd`; raise termios.error if it is none."""
        self._fd, self._pressed, self._lost = fd, pressed, lost
        self._loop = asyncio.get_running_loop()
        self._saved = termios.tcgetattr(fd)
        self._reading = False

    def open(self) -> None:
        """Read keys from now on, whenever this process is in the foreground."""
        self._loop.add_signal_handler(signal.SIGCONT, self._take_or_leave)
        self._take_or_leave()

    def close(self) -> None:
        """Read no more, and restore the settings of the terminal."""
        self._loop.remove_signal_handler(signal.SIGCONT)
        self._leave()
        if self.in_foreground:
            self._set(self._saved)

    @property
    def in_foreground(self) -> bool:
        """Whether this process group is in the foreground, so that keys are meant for it."""
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # hung up, or not our terminal
            return False

    @property
    def hung_up(self) -> bool:
        try:
            termios.tcgetattr(self._fd)
        except termios.error:
            return True
        return False

    # Private

    def _take_or_leave(self) -> None:
        if not self.in_foreground:
            self._leave()
            return
        settings = termios.tcgetattr(self._fd)
        settings[3] &= ~(termios.ICANON | termios.ECHO)  # ISIG stays: Ctrl-C is a signal
        settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
        self._set(settings)
        if not self._reading:
            self._loop.add_reader(self._fd, self._on_readable)
            self._reading = True

    def _leave(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._fd)
            self._reading = False

    def _set(self, settings: list[int | list[bytes | int]]) -> None:
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, settings)
        except termios.error:  # hung up
            self._leave()

    def _on_readable(self) -> None:
        if not self.in_foreground and not self.hung_up:
            self._leave()  # what is typed now is meant for the shell
            return
        try:
            typed = os.read(self._fd, 64)
        except OSError:
            typed = b""
        if not typed:
            self._leave()
            self._lost()
        for key in strokes(typed.decode(errors="ignore")):
            self._pressed(key)
