"""`python -m sockmgr.programs.sweep [FD…]`: end all processes of our unit, without a manager.

The guard runs it when no manager can come back. The state (each FD is a copy that the manager
wrote; the newest counts) names the workers. Each worker gets its stop signal and its drain_timeout,
as from a manager, then KILL with all processes that belong to it. A process that belongs to no
worker gets TERM at once, and KILL in the end. No process outside of the unit is signalled, and none
of a manager that was started since. Without a unit only workers and their processes are signalled.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sockmgr.fleet import snapshot
from sockmgr.fleet.descendants import Key, Orphan, Orphans
from sockmgr.fleet.messages import State
from sockmgr.fleet.snapshot import ProcessSnapshot, Snapshot, SnapshotError
from sockmgr.kernel import cgroup, procfs
from sockmgr.kernel.cgroup import Unit
from sockmgr.kernel.procfs import Member
from sockmgr.log import Log

log = Log("sockmgr.sweep")

GRACE = 30.0  # seconds until KILL if no state can be read
SHORTEST_GRACE = 5.0
LAST_WAIT = 5.0  # seconds that a process may take to die of KILL
_STDERR = 2
DOUBT = 5.0  # seconds between the end of the last manager and our start, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A worker that the state names, with what is written there of its process."""

    was: ProcessSnapshot
    stop_signal: int
    deadline: float


# --- Deciding ------------------------------------------------------------------------------------


class Sweep:
    """Decides which process gets which signal, and when. Sends nothing and looks at no process."""

    def __init__(
        self,
        charges: Iterable[Charge],
        present: Mapping[int, Member],
        grace: float,
        now: float,
        serves: Callable[[Member], bool],
    ) -> None:
        """Begin with the processes `present`. A worker has ended if another process has its pid.

        `grace` is how many seconds other processes get. `serves` returns whether a process that
        outlived the process of its worker may still serve a client.
        """
        self._charges = {
            charge.was.pid: charge for charge in charges if not _is_another(charge, present)
        }
        self._left = {
            pid: Orphans(charge.stop_signal, charge.deadline, charge.was.told_others)
            for pid, charge in self._charges.items()
        }
        self._serves = serves
        self._end = now + grace
        self._sent: set[tuple[Member, int]] = set()
        self._whose: dict[Key, Charge] = {}

    @property
    def workers(self) -> Collection[int]:
        return self._charges.keys()

    def ours(self, present: Mapping[int, Member], since: float | None) -> dict[int, Member]:
        """Return the processes to end: all, or those that began before `since`, and workers."""
        return {
            pid: member
            for pid, member in present.items()
            if since is None or member.started < since or self._charge_of(member, present)
        }

    def signals(self, present: Mapping[int, Member], now: float) -> Iterator[tuple[Member, int]]:
        """Yield the signals that are due, each one once for each process."""
        number = int(signal.SIGKILL if now >= self._end else signal.SIGTERM)
        others = [each for each in present.values() if self._charge_of(each, present) is None]
        due = [(each, number) for each in others]
        for charge in self._charges.values():
            mine = [m for m in present.values() if self._charge_of(m, present) is charge]
            due += self._due(charge, mine, now)
        for one in due:
            if one not in self._sent:
                self._sent.add(one)
                yield one

    def next(self, now: float) -> float:
        """Return when the next signal may be due."""
        instants = [self._end, *(charge.deadline for charge in self._charges.values())]
        instants += [left.next(now) for left in self._left.values()]
        return min((at for at in instants if now < at < math.inf), default=self.given_up_at)

    @property
    def given_up_at(self) -> float:
        """When to give up on processes that have survived KILL."""
        return max([self._end, *(c.deadline for c in self._charges.values())]) + LAST_WAIT

    def _due(self, charge: Charge, mine: list[Member], now: float) -> list[tuple[Member, int]]:
        by_pid = {member.pid: member for member in mine}
        if main := by_pid.get(charge.was.pid):
            if now >= charge.deadline:
                return [(member, signal.SIGKILL) for member in mine]
            # Only the worker's own process, which stops its children itself.
            return [] if charge.was.told else [(main, charge.stop_signal)]
        orphans = [
            Orphan(pid=m.pid, parent=m.parent, started=m.started, serves=self._serves(m))
            for m in mine
        ]
        due = self._left[charge.was.pid].due(orphans, now)
        return [(by_pid[orphan.pid], number) for orphan, number in due]

    def _charge_of(self, member: Member, present: Mapping[int, Member]) -> Charge | None:
        """Return the worker that a process is, descends from, or shares a session or group with.

        The answer is kept: it holds for a process also when its parents have ended.
        """
        mine = (member.pid, member.started)
        if mine not in self._whose and (found := self._find(member, present)):
            self._whose[mine] = found
        return self._whose.get(mine)

    def _find(self, member: Member, present: Mapping[int, Member]) -> Charge | None:
        seen: Member | None = member
        for _ in present:
            if seen is None:
                break
            known = self._whose.get((seen.pid, seen.started))
            if found := known or self._charge_at(seen.pid, present):
                return found
            seen = present.get(seen.parent)
        return self._charge_at(member.session, present) or self._charge_at(member.group, present)

    def _charge_at(self, pid: int, present: Mapping[int, Member]) -> Charge | None:
        charge = self._charges.get(pid)
        return None if charge is None or _is_another(charge, present) else charge


def _is_another(charge: Charge, present: Mapping[int, Member]) -> bool:
    """Return whether another process has the pid of a worker, so that the worker has ended."""
    found = present.get(charge.was.pid)
    return found is not None and found.started != charge.was.started


# --- The state -----------------------------------------------------------------------------------


def charges_in(state: Snapshot, now: float) -> Iterator[Charge]:
    """Yield every worker that has a process, with the rest of its drain_timeout."""
    for service in state.services:
        for generation in service.generations:
            spec = generation.spec
            for worker in generation.workers:
                if worker.process is None:
                    continue
                deadline = now + spec.drain_timeout
                if worker.state is State.KILLED:
                    deadline = now
                elif worker.state is State.DRAINING and worker.process.told:
                    deadline = min(deadline, worker.deadline or deadline)
                yield Charge(was=worker.process, stop_signal=spec.stop_signal, deadline=deadline)


def longest_drain(state: Snapshot) -> float:
    """Return how long a worker may need that is too new for the state."""
    specs = [g.spec for service in state.services for g in service.generations]
    return max([SHORTEST_GRACE, *(spec.drain_timeout for spec in specs)])


def _read(fds: Iterable[int]) -> Snapshot | None:
    candidates = [os.pread(fd, os.fstat(fd).st_size, 0) for fd in fds]
    try:
        found = snapshot.latest(candidates)
    except SnapshotError as error:
        log.error("the state cannot be used", error=error.what)
        return None
    return found.state if found else None


# --- Performing ----------------------------------------------------------------------------------


class Handles:
    """A pidfd of each process that is to end, so that no other with its pid is signalled."""

    def __init__(self) -> None:
        self._fds: dict[Member, int] = {}

    def hold(self, members: Collection[Member], unit: Unit | None) -> None:
        """Hold the pidfds of these processes, and close all others."""
        for member in [held for held in self._fds if held not in members]:
            os.close(self._fds.pop(member))
        for member in members:
            if member not in self._fds and (fd := _open(member, unit)) is not None:
                self._fds[member] = fd

    def send(self, member: Member, number: int) -> None:
        """Send a signal to a process whose pidfd is held; one that has just died needs none."""
        if member not in self._fds:
            return
        log.info("signal sent", pid=member.pid, signal=signal.Signals(number).name)
        try:
            signal.pidfd_send_signal(self._fds[member], number)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            log.error("cannot signal", pid=member.pid, error=error.strerror)

    def wait(self, until: float) -> None:
        """Return when one of the processes has died, or at `until`."""
        watch = select.poll()
        for fd in self._fds.values():
            watch.register(fd, select.POLLIN)
        if self._fds:
            watch.poll(math.ceil(max(0.0, until - time.monotonic()) * 1000))

    def close(self) -> None:
        self.hold((), None)


def _open(member: Member, unit: Unit | None) -> int | None:
    try:
        fd = os.pidfd_open(member.pid)
    except ProcessLookupError:
        return None
    now = procfs.member(member.pid)  # after pidfd_open(2), so that both are about one process
    if now and now.started == member.started and (unit is None or unit.has(member.pid)):
        return fd
    os.close(fd)
    return None


def _present(unit: Unit | None) -> dict[int, Member]:
    """Return all processes of the unit except our own session: this one and the guard's shell."""
    found = cgroup.members(unit) if unit else {each.pid: each for each in procfs.everybody()}
    return {pid: member for pid, member in found.items() if member.session != os.getsid(0)}


def _since(unit: Unit | None, began: float) -> float | None:
    """Return the start time before which processes are to end; None: all are to end.

    Later processes belong to a new manager of the unit, which has a guard of its own.
    """
    if unit is None:
        return 0.0
    return began if Path(cgroup.mark_of(unit)).is_symlink() else None


def run(state: Snapshot | None, unit: Unit | None) -> bool:
    """Return True when all processes have ended, False if some survive KILL."""
    now = time.monotonic()
    present = _present(unit)
    sweep = Sweep(
        charges_in(state, now) if state else (),
        present,
        longest_drain(state) if state else GRACE,
        now,
        lambda member: bool(procfs.sockets_of(member.pid, above=_STDERR)),
    )
    me = procfs.member(os.getpid())
    began = me.started - DOUBT * os.sysconf("SC_CLK_TCK") if me else 0.0
    with contextlib.closing(Handles()) as handles:
        while ours := sweep.ours(present, _since(unit, began)):
            now = time.monotonic()
            if now >= sweep.given_up_at:
                log.error("these do not die", pids=" ".join(map(str, ours)))
                return False
            handles.hold(ours.values(), unit)
            for member, number in sweep.signals(ours, now):
                handles.send(member, number)
            handles.wait(sweep.next(now))
            present = _present(unit)
    return True


def main(fds: Iterable[int]) -> bool:
    """End all processes that are left, and log it; return False if some survive KILL."""
    logging.basicConfig(level=logging.INFO, format="guard: %(message)s")
    unit, began = cgroup.own_unit(), time.monotonic()
    log.warning("no manager can come back: its workers are ended", unit=unit.name if unit else "")
    if not run(_read(fds), unit):
        return False
    log.info("nothing is left", took=time.monotonic() - began)
    return True


if __name__ == "__main__":
    sys.exit(0 if main(map(int, sys.argv[1:])) else 1)
