"""Ends all workers, and mends the terminal, if dev itself is killed.

A shell in a session of its own waits on a socket of which only dev has the other end. That end is
closed however dev ends. The shell then ends every process whose environment has our mark, and
its group: so also what a worker started, however it has been detached.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket

from sockmgr.errors import SpawnError

SHELL = "/bin/sh"
VARIABLE = "SOCKMGR_DEV"
DISMISSED = b"dismissed\n"

# $1 is the mark, $2 the settings of the terminal, which is 4. TERM first; after a second, KILL.
# It has no name of ours in it, so that `pkill sockmgr` does not kill the shell as well.
_SCRIPT = r"""
exec <&3 3<&-
read -r _ && exit
[ -z "$2" ] || stty "$2" <&4
empty=0 turn=0
while [ $empty -lt 2 ] && [ $turn -lt 50 ]; do
    empty=$((empty + 1))
    for file in $(grep -lsF "$1" /proc/[0-9]*/environ); do
        pid=${file#/proc/} pid=${pid%/environ} empty=0
        [ $turn -ne 0 ] || kill -s TERM "$pid"
        [ $turn -lt 10 ] || kill -s KILL -- "$pid" "-$pid"
    done
    sleep 0.1
    turn=$((turn + 1))
done
"""


class Lifeline:
    """Our end. `mark` must be in the environment of all that is to end with us."""

    def __init__(self, terminal: int | None = None) -> None:
        """Start the shell; on `terminal`, borrowed, it restores what is set there now.

        Raises SpawnError.
        """
        self._token = secrets.token_hex(16)
        ours, its = socket.socketpair()
        with its:
            try:
                self._pid = self._spawn(its.fileno(), terminal)
            except OSError as error:
                ours.close()
                raise SpawnError(
                    f"cannot start {SHELL}: {error.strerror}",
                    means="it would end the workers if sockmgr dev is killed",
                ) from error
        self._ours = ours

    @property
    def mark(self) -> tuple[str, str]:
        """The variable by which processes are found."""
        return VARIABLE, self._token

    def dismiss(self) -> None:
        """Have the shell end without doing anything: all has been ended in order."""
        with contextlib.suppress(OSError):  # somebody killed it
            self._ours.send(DISMISSED, socket.MSG_NOSIGNAL)
        self._ours.close()
        with contextlib.suppress(ChildProcessError):  # reaped with other descendants
            os.waitpid(self._pid, 0)

    def _spawn(self, lifeline: int, terminal: int | None) -> int:
        places = [(lifeline, 3)] + ([] if terminal is None else [(terminal, 4)])
        # Dup'ed to numbers that are no source of another first.
        high = 10 + max(source for source, _ in places)
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            *((os.POSIX_SPAWN_DUP2, source, high + place) for source, place in places),
            *((os.POSIX_SPAWN_DUP2, high + place, place) for _, place in places),
            *((os.POSIX_SPAWN_CLOSE, high + place) for _, place in places),
            *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)),
        ]
        saved = "" if terminal is None else _settings(terminal)
        return os.posix_spawn(
            SHELL,
            ["sh", "-c", _SCRIPT, "sh", self._token, saved],
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigdef=signal.valid_signals(),
            setsigmask=(),
        )


def _settings(terminal: int) -> str:
    """Return what `stty -g` would, by itself: a process would cost more."""
    import termios  # noqa: PLC0415 - only with a terminal

    iflag, oflag, cflag, lflag, _, _, characters = termios.tcgetattr(terminal)
    codes = (c if isinstance(c, int) else ord(c) for c in characters)
    return ":".join(f"{value:x}" for value in (iflag, oflag, cflag, lflag, *codes))
