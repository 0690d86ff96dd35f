"""The CPU priority of processes that boot beside others that serve. Starts and ends nothing.

A boot at low priority gets what live traffic leaves of the processors. Where traffic leaves next to
nothing, the boots would take for ever, and all of them at normal priority would be felt: then a few
get the normal priority, and a few more when these are ready, or have not got ready in a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from sockmgr.kernel import priority, processors
from sockmgr.kernel.priority import Demand
from sockmgr.log import Log

LOOK = 0.25  # seconds between looks at how the boots get on
STARVING = 0.25  # of the processors that boots could use: with less, they are not getting anywhere
CORES_A_BOOT = 4  # so many processors for each boot that is raised ...
STEP = 1.0  # ... at once, and once more each time that boots have starved for so many seconds
AGAIN = 0.1  # seconds until the kernel may let us change a session once more

NOTHING = Demand(0.0, 0.0)

log = Log("sockmgr")


@dataclass(slots=True, kw_only=True, eq=False)
class BootPriority:
    """One process that boots; at low priority until over(), forget(), or a raise by its Boots."""

    boots: Boots
    name: str
    pid: int
    raise_at: float  # on the clock of the loop: raised then, whatever the others get
    demand: Demand = NOTHING
    low: bool = False
    session_low: bool = False

    def over(self) -> None:
        """Give the process the manager's own priority: it serves now."""
        self.boots.end(self, restore=True)

    def forget(self) -> None:
        """Touch the process no more: it is gone."""
        self.boots.end(self, restore=False)


class Boots:
    def __init__(self, loop: asyncio.AbstractEventLoop, *, can_lower: bool) -> None:
        """Lower none if `can_lower` is false, since what is lowered could not be raised again."""
        self._loop, self._can_lower = loop, can_lower
        self._cores = processors.available()
        self._low: dict[BootPriority, None] = {}
        self._raised: set[BootPriority] = set()
        self._unrestored: dict[int, None] = {}  # pids whose session is low, though they serve
        self._starve = False
        self._raise_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, name: str, pid: int, timeout: float, low: bool) -> BootPriority:
        """Return the boot of a process that has `timeout` seconds for it, 0 if it is ready.

        The process may have been lowered by a manager that died before it could raise it again.
        """
        boot = BootPriority(
            boots=self, name=name, pid=pid, raise_at=self._loop.time() + timeout / 2
        )
        if low and self._can_lower:
            priority.lower(pid)
            boot.session_low = priority.lower_session(pid)
        elif priority.is_low(pid):
            boot.session_low = True
        else:
            return boot
        boot.low = True
        if not timeout:  # it serves already: the manager that lowered it died before it could see
            self._restore(boot)
            return boot
        boot.demand = priority.demand(pid)
        self._low[boot] = None
        self._wake(LOOK)
        return boot

    def end(self, boot: BootPriority, *, restore: bool) -> None:
        """Have no more to do with a boot; O(1)."""
        self._low.pop(boot, None)
        if not restore:
            boot.low = False
            self._unrestored.pop(boot.pid, None)
        elif boot.low:
            self._restore(boot)
        if boot in self._raised:  # its place is free for the next one
            self._raised.remove(boot)
            self._raise_starving()

    def _restore(self, boot: BootPriority) -> None:
        boot.low = False
        priority.restore(boot.pid)
        if boot.session_low and not priority.restore_session(boot.pid):
            self._unrestored[boot.pid] = None
            self._wake(AGAIN)

    def _wake(self, pause: float) -> None:
        if self._timer and self._timer.when() > self._loop.time() + pause:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_later(pause, self._look)

    def _look(self) -> None:
        """See how the boots get on; O(boots), and only while there are any."""
        self._timer = None
        self._unrestored = {
            pid: None for pid in self._unrestored if not priority.restore_session(pid)
        }
        if self._low:
            self._measure()
            self._raise_starving()
        if self._unrestored or self._low:
            self._wake(AGAIN if self._unrestored else LOOK)

    def _measure(self) -> None:
        spent = []
        for boot in self._low:
            before, boot.demand = boot.demand, priority.demand(boot.pid)
            spent.append(Demand(boot.demand.ran - before.ran, boot.demand.waited - before.waited))
            # One that is still to serve has time; those that serve come first.
            if not boot.session_low and not self._unrestored:
                boot.session_low = priority.lower_session(boot.pid)
        self._starve = starve(spent, self._cores)

    def _raise_starving(self) -> None:
        now, room = self._loop.time(), 0
        if self._starve and (not self._raised or now >= self._raise_at):
            room, self._raise_at = max(1, self._cores // CORES_A_BOOT), now + STEP
        # The one that has come furthest first: it is the next that can serve.
        queue = sorted(self._low, key=lambda boot: -boot.demand.ran)
        late = [boot for boot in queue if boot.raise_at <= now]
        for boot in {**dict.fromkeys(queue[:room]), **dict.fromkeys(late)}:
            del self._low[boot]
            self._raised.add(boot)
            self._restore(boot)
            log.info("boot priority restored", worker=boot.name, ran=boot.demand.ran,
                     waited=boot.demand.waited)  # fmt: skip


def starve(spent: Iterable[Demand], cores: int) -> bool:
    """Return whether boots that `spent` this since the last look get too little to end in time.

    Those that wait for something else than a processor do not count.
    """
    wanting = [each for each in spent if each.ran + each.waited > LOOK / 2]
    usable = LOOK * min(cores, len(wanting))
    return sum(each.ran for each in wanting) < STARVING * usable
