"""The newest lines of the log, and the followers that read more as they come. Bounded.

The ring waits for no follower: a slow one is told how many lines it missed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from itertools import islice

from sockmgr.api.types import LogLine
from sockmgr.manager.logs.wakeup import Wakeup

LINES_MAX = 1000
CHARACTERS_MAX = 256 * 1024


class Ring:
    """The newest lines, bounded by their number and by their characters."""

    def __init__(self, lines_max: int = LINES_MAX, characters_max: int = CHARACTERS_MAX) -> None:
        self._lines: deque[LogLine] = deque()
        self._lines_max, self._characters_max = lines_max, characters_max
        self._characters = 0
        self._added = 0
        self._added_about: Counter[str] = Counter()
        self.wakeup = Wakeup()  # at each line

    def add(self, line: LogLine) -> None:
        """Keep a line until newer ones need its room, and wake the followers that wait."""
        self._lines.append(line)
        self._added += 1
        self._added_about[line.service] += 1
        self._characters += len(line.message)
        # Both bounds: a thousand lines may be long, and short ones cost more than their characters.
        while len(self._lines) > self._lines_max or self._characters > self._characters_max:
            self._characters -= len(self._lines.popleft().message)
        self.wakeup.ring()

    def added(self, service: str) -> int:
        """Return how many lines about this service (empty: about any) were ever added."""
        return self._added_about[service] if service else self._added

    def since(self, number: int, service: str) -> list[LogLine]:
        """Return the lines about this service after the first `number` of all, if still kept."""
        # Lines are numbered by when they were added; so many were dropped before the oldest.
        first = self._added - len(self._lines)
        newer = islice(self._lines, max(0, number - first), None)
        return [line for line in newer if service in ("", line.service)]


class Follower:
    """One reader of a ring: first the `last` lines about a service, then the lines that come."""

    def __init__(self, ring: Ring, service: str, last: int) -> None:
        self._ring, self._service = ring, service
        found = ring.since(0, service)
        self._unread = found[len(found) - last :] if last < len(found) else found
        self._go_on()

    def take(self) -> tuple[tuple[LogLine, ...], int]:
        """Return the lines since the last call, and how many others were dropped unread."""
        new = self._ring.since(self._total, self._service)
        # Lines about this service that were added and are not there any more.
        missed = self._ring.added(self._service) - self._counted - len(new)
        lines, self._unread = (*self._unread, *new), []
        self._go_on()
        return lines, missed

    def next(self) -> asyncio.Future[None]:
        """Return a future that is done when take() may have more; cancel it to stop waiting."""
        return self._ring.wakeup.next(now=self._total != self._ring.added(""))

    def _go_on(self) -> None:
        # Two counts: one says where to go on, the other how many lines about the service are due.
        self._total = self._ring.added("")
        self._counted = self._ring.added(self._service)
