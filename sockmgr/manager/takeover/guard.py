"""The guard: a process that outlives the manager, and ends its workers if no other takes them over.

It is a shell that waits for the end of a socket, the lifeline, whose other end the manager and its
fd store hold. When the last copy of that is closed, nobody can come back: then the shell runs
sockmgr.programs.sweep. No Python waits until then, since it would take memory for as long as the
manager lives.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence

from sockmgr.errors import SpawnError
from sockmgr.kernel.cgroup import mark_of, own_unit
from sockmgr.kernel.closing import closed_on_error
from sockmgr.kernel.spawn import SHELL, file_actions
from sockmgr.log import Log

log = Log("sockmgr")

NAME = "sockmgr-guard"  # as it is seen by ps(1), with " of shop.service" behind it
DISMISSED = b"dismissed\n"
# Not even a signal for the whole unit may end it before the workers. The shell needs SIGCHLD.
_IGNORED = frozenset(signal.valid_signals()) - {signal.SIGCHLD}

# Gets the lifeline as 3, our Python as $1, the line of /proc/PID/cgroup of our unit as $2, what
# tells that the unit was started as $3, and then the descriptors of the state. The script comes by
# stdin, so that `systemctl status` and ps(1) show arguments that one can read, and so that no file
# need be there. The braces have the shell read all of it before the lifeline becomes its stdin.
_SCRIPT = rb"""{
exec <&3 3<&-
if read -r _; then exit 0; fi
python=$1 unit=$2 mark=$3
shift 3
"$python" -P -m sockmgr.programs.sweep "$@" </dev/null && exit 0

# The virtual environment was removed, or damaged. The workers' stop signals are in the state, which
# a shell cannot read.
echo "guard: $python -m sockmgr.programs.sweep failed: ending all of ${unit:-no unit}" >&2
[ -n "$unit" ] || exit 1
for signal in TERM KILL KILL; do
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        while read -r line; do
            case $line in "$unit" | "$unit"/*)
                # Looked at after the process: so it is not of a manager that was just started.
                [ "$pid" = $$ ] || [ -L "$mark" ] || kill -s "$signal" "$pid"
            esac
        done 2>/dev/null <"$process/cgroup"
    done
    [ "$signal" = KILL ] || sleep 10
done
exit
}
"""


class Guard:
    """Our end of the lifeline. At most one guard is ours at a time."""

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._lifeline: socket.socket | None = None
        self.pid = 0  # of a guard that we started

    def start(self, states: Sequence[int]) -> None:
        """Start a guard, which gets duplicates of the descriptors `states`; dismiss the one before.

        Raises SpawnError.
        """
        ours, its = socket.socketpair()
        with its, closed_on_error(ours):
            pid = _spawn(self._python, its.fileno(), states)
        self.dismiss()
        ours.setblocking(False)
        self._lifeline, self.pid = ours, pid
        log.info("guard started", pid=pid)

    def adopt(self, lifeline: socket.socket) -> bool:
        """Own `lifeline`, which a predecessor held; return whether its guard still lives."""
        lifeline.setblocking(False)
        self._lifeline = lifeline
        if not self.alive:
            self.close()
        return self._lifeline is not None

    def fileno(self) -> int:
        """Return our end of the lifeline, which the next manager needs; -1 if there is no guard.

        It turns readable when the guard has died.
        """
        return -1 if self._lifeline is None else self._lifeline.fileno()

    @property
    def alive(self) -> bool:
        """Whether somebody holds the other end."""
        return self._lifeline is not None and not self._hung_up(0.0)

    def dismiss(self, timeout: float = 1.0) -> None:
        """Have the guard end without doing anything, as no worker is left; wait for its end."""
        if self._lifeline is None:
            return
        with contextlib.suppress(OSError):  # it has died
            self._lifeline.send(DISMISSED, socket.MSG_NOSIGNAL)
        if self._hung_up(timeout) and self.pid:
            with contextlib.suppress(ChildProcessError):  # the reaper was faster
                os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        """Close our end of the lifeline: the guard acts as soon as no other copy of it is open."""
        if self._lifeline is not None:
            self._lifeline.close()
        if self.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)  # leave no zombie if it has died
        self._lifeline, self.pid = None, 0

    def _hung_up(self, timeout: float) -> bool:
        watch = select.poll()
        watch.register(self.fileno(), 0)
        return bool(watch.poll(timeout * 1000))


def _spawn(python: str, lifeline: int, states: Sequence[int]) -> int:
    unit = own_unit()
    numbers = [4 + n for n in range(len(states))]  # 3 is the lifeline
    last = 4 + len(states)
    about = [unit.line, mark_of(unit)] if unit else ["", ""]
    name = f"{NAME} of {unit.name}" if unit else NAME
    script = os.memfd_create(NAME)
    try:
        os.pwrite(script, _SCRIPT, 0)
        return os.posix_spawn(
            SHELL,
            [name, "-s", python, *about, *map(str, numbers)],
            os.environ,
            file_actions=[
                *file_actions([lifeline, *states, script], stdout=2),
                (os.POSIX_SPAWN_DUP2, last, 0),
                (os.POSIX_SPAWN_CLOSE, last),
            ],
            setsid=True,
            setsigdef=signal.valid_signals(),
            setsigmask=_IGNORED,
        )
    except OSError as error:
        raise SpawnError(
            f"cannot start the guard: {SHELL}: {error.strerror}",
            means="if no manager can come back after this one, its workers will go on alone",
            do="look for what keeps the manager from starting processes (TasksMax=, LimitNPROC=)",
        ) from error
    finally:
        os.close(script)
