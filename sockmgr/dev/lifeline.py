"""Ends all workers if dev itself is killed. The terminal is left to the shell around it, as bash.

A shell in a session of its own waits for the end of a socket whose other end only dev has. The
kernel closes that end however dev ends. The shell then ends every process whose environment has our
mark, with its process group, and so also processes that a worker started and detached.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket

from sockmgr.errors import SpawnError
from sockmgr.kernel.spawn import SHELL, silent_actions

VARIABLE = "SOCKMGR_DEV"
DISMISSED = b"dismissed\n"

# $1 is the mark. It sends TERM first, and KILL after a second. The name sockmgr is not in it, so
# that `pkill -f sockmgr` spares the shell.
_SCRIPT = r"""
exec <&3 3<&-
read -r _ && exit
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
    """Dev's end of the socket. Each process that is to end with dev must have `mark` in its env."""

    def __init__(self) -> None:
        """Start the shell; raise SpawnError."""
        self._token = secrets.token_hex(16)
        ours, its = socket.socketpair()
        with its:
            try:
                self._pid = self._spawn(its.fileno())
            except OSError as error:
                ours.close()
                raise SpawnError(
                    f"cannot start {SHELL}: {error.strerror}",
                    means="it would end the workers if sockmgr dev is killed",
                ) from error
        self._ours = ours

    @property
    def mark(self) -> tuple[str, str]:
        """The variable, and its value, by which the shell finds the processes to end."""
        return VARIABLE, self._token

    def dismiss(self) -> None:
        """Have the shell end without doing anything, because the workers have ended in order."""
        with contextlib.suppress(OSError):  # somebody killed the shell
            self._ours.send(DISMISSED, socket.MSG_NOSIGNAL)
        self._ours.close()
        with contextlib.suppress(ChildProcessError):  # the manager's reaper has waited for it
            os.waitpid(self._pid, 0)

    def _spawn(self, lifeline: int) -> int:
        return os.posix_spawn(
            SHELL,
            ["sh", "-c", _SCRIPT, "sh", self._token],
            os.environ,
            file_actions=silent_actions([lifeline]),
            setsid=True,
            setsigdef=signal.valid_signals(),
            setsigmask=(),
        )
