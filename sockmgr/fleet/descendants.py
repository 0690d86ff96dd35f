"""What the descendants of a worker are told when its main process has ended, and when. Pure.

Those that *serve* (they hold sockets of its service) get its stop signal, and time to finish.
Helpers, such as the resource tracker of Python's multiprocessing, end by themselves as a rule: they
get a second, and in the middle of it TERM, which those that have to be the last ignore.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator

import msgspec

HELPER_TIME = 1.0  # seconds that a helper may take ...
ASKED_AFTER = 0.5  # ... and it is asked to end after these
CRASH_TIME = 1.0  # that all may take, if the main process crashed
LAST_WAIT = 2.0  # that a process may take to die of KILL before it is waited for no longer

_KILL, _TERM = 9, 15


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A living descendant; `started` tells a pid's reuse, `serves` whether it holds our sockets."""

    pid: int
    parent: int
    started: int
    serves: bool


Key = tuple[int, int]  # pid and when it began
Line = list[Orphan]


class Orphans:
    """Those of one worker, from the end of its main process on. Signals nobody by itself."""

    def __init__(self, stop_signal: int, deadline: float, told: Collection[Key] = ()) -> None:
        """Those that serve are killed at `deadline`; who is in `told` has had the stop signal."""
        self.told = set(told)
        self.deadline = deadline
        self._stop_signal = stop_signal
        self._serving: set[Key] = set()
        self._helpers: dict[Key, float] = {}  # since when
        self._asked: set[Key] = set()
        self._killed: dict[Key, float] = {}

    def due(self, present: Collection[Orphan], now: float) -> list[tuple[Orphan, int]]:
        """Return who is to get which signal now, of all that are present."""
        if now >= self.deadline:
            return list(self._to_kill(present, now))
        self._serving |= {key(each) for each in present if each.serves}
        lines = list(_lines(present))
        # What is below a process that serves is that one's to stop; through those above it lives.
        busy = {key(each) for line in lines if self._serves(line) for each in line}
        helpers = [each for each in present if key(each) not in busy]
        return [*self._to_stop(lines), *self._to_help(helpers, now)]

    def serve(self, present: Collection[Orphan]) -> bool:
        """Tell whether any of them serves, or did."""
        return self._serves(present) or any(each.serves for each in present)

    def next(self, now: float) -> float:
        """Return when something is due again."""
        steps = (ASKED_AFTER, HELPER_TIME)
        instants = [since + step for since in self._helpers.values() for step in steps]
        instants += [at + LAST_WAIT for at in self._killed.values()]
        return min((at for at in [self.deadline, *instants] if at > now), default=math.inf)

    def waited_for(self, present: Collection[Orphan], now: float) -> list[Orphan]:
        """Return them without those that should have died of KILL, but hang in the kernel."""
        return [each for each in present if now < self._killed.get(key(each), now) + LAST_WAIT]

    def _to_stop(self, lines: Iterable[Line]) -> Iterator[tuple[Orphan, int]]:
        for each, *above in lines:
            mine = key(each)
            if mine not in self._serving or self._serves(above):
                continue
            if mine not in self.told:
                self.told.add(mine)
                yield each, self._stop_signal

    def _to_help(self, helpers: list[Orphan], now: float) -> Iterator[tuple[Orphan, int]]:
        for each in helpers:
            since = self._helpers.setdefault(key(each), now)
            if now >= since + HELPER_TIME:
                yield from self._to_kill([each], now)
            elif now >= since + ASKED_AFTER and key(each) not in self._asked:
                self._asked.add(key(each))
                yield each, _TERM

    def _serves(self, line: Iterable[Orphan]) -> bool:
        return any(key(each) in self._serving for each in line)

    def _to_kill(self, orphans: Iterable[Orphan], now: float) -> Iterator[tuple[Orphan, int]]:
        for each in orphans:
            if key(each) not in self._killed:
                self._killed[key(each)] = now
                yield each, _KILL


def key(orphan: Orphan) -> Key:
    """Return what means one process only."""
    return orphan.pid, orphan.started


def _lines(present: Collection[Orphan]) -> Iterator[Line]:
    """Yield each with those that are present of whom it descends, nearest first."""
    by_pid = {each.pid: each for each in present}
    for each in present:
        line, above = [each], by_pid.get(each.parent)
        while above and above not in line:
            line.append(above)
            above = by_pid.get(above.parent)
        yield line
