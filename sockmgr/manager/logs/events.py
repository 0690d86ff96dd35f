"""The newest events, and counts of all, for clients that ask or follow. Bounded; waits for none.

A client is told of an event only when the next manager would know it as well: `show` says so. An
event has an id, and ids grow from manager to manager, so a follower can go on with the next manager
after the last id that it saw. A follower that reads too slowly is told that it missed some.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from sockmgr.api.records import recorded
from sockmgr.api.types import Event
from sockmgr.log import Occurrence
from sockmgr.manager.logs.counters import Counters
from sockmgr.manager.logs.wakeup import Wakeup

EVENTS_MAX = 512
KEPT_MAX = 64  # for the next manager: the whole state is written anew at each change


class EventLog(logging.Handler):
    """Keeps the newest occurrences as events, counts all in `tally`; calls `on_event` for each."""

    def __init__(self, limit: int = EVENTS_MAX) -> None:
        super().__init__()
        self.on_event: Callable[[], object] | None = None
        self.tally = Counters()
        self._limit = limit
        self._events: deque[Event] = deque()
        self._complete_since = time.time_ns() // 1000  # nothing with a higher id is missing
        self._shown = self._complete_since
        self.wakeup = Wakeup()  # when there is more to see

    def emit(self, record: logging.LogRecord) -> None:
        """Take one of the manager's own records; a record of a library is no event."""
        if isinstance(record.msg, Occurrence):
            self.tally.take(record.msg)
            # Ids follow the clock, so that those of the next manager are higher even if it finds no
            # state to go on from. The clock may have been set back since the last event.
            id = max(int(record.created * 1e6), self.newest + 1)
            self._add(recorded(record.msg, record.levelname.lower(), record.created, id))

    @property
    def newest(self) -> int:
        """The id of the last event, or one that is lower than that of the next."""
        return self._events[-1].id if self._events else self._complete_since

    @property
    def shown(self) -> int:
        """The id of the last event that clients may see; all of them where nobody comes next."""
        return self.newest if self.on_event is None else self._shown

    def show(self) -> None:
        """Let clients see all events so far."""
        if self._shown != self.newest:
            self._shown = self.newest
            self.wakeup.ring()

    @property
    def kept(self) -> tuple[int, tuple[Event, ...]]:
        """The arguments with which the next manager calls resume()."""
        first = max(0, len(self._events) - KEPT_MAX)
        since = self._events[first - 1].id if first else self._complete_since
        return since, tuple(self._events)[first:]

    def resume(self, complete_since: int, events: Sequence[Event]) -> None:
        """Put the events of the manager before us before our own, which no client has seen yet."""
        own, self._events = self._events, deque(events)
        self._complete_since = complete_since
        for event in own:
            # Our own first events may be older than the last one of the manager before us.
            self._add(replace(event, id=max(event.id, self.newest + 1)))

    def since(self, id: int) -> list[Event]:
        """Return the events with a higher id that clients may see, the oldest first."""
        # The search begins at the end: a follower asks at each event, and has read nearly all.
        found = []
        for event in reversed(self._events):
            if event.id <= id:
                break
            found.append(event)
        return [event for event in reversed(found) if event.id <= self.shown]

    def is_complete_since(self, id: int) -> bool:
        """Return whether `id` is one of ours and all events with a higher id are still kept."""
        return self._complete_since <= id <= self.newest

    def _add(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) > self._limit:
            self._complete_since = self._events.popleft().id
        if self.on_event is None:
            self.wakeup.ring()
        else:
            self.on_event()


class EventFollower:
    """One reader of the events, which remembers how far it has read."""

    def __init__(
        self, history: EventLog, service: str, after: int | None, last: int | None
    ) -> None:
        """Read the `last` events (None: all) about `service` (empty: any service), and what comes.

        With `after` only events with a higher id.
        """
        self._history, self._service = history, service
        self._missed = after is not None and not history.is_complete_since(after)
        found = self._about(0 if after is None or self._missed else after)
        self._unread = found if last is None else found[max(0, len(found) - last) :]
        self.newest = history.shown  # the id of the last event that was looked at

    def take(self) -> tuple[tuple[Event, ...], bool]:
        """Return the events since the last call, and whether older ones were dropped unread."""
        missed = self._missed or not self._history.is_complete_since(self.newest)
        events = (*self._unread, *self._about(self.newest))
        self._unread, self._missed, self.newest = [], False, self._history.shown
        return events, missed

    def next(self) -> asyncio.Future[None]:
        """Return a future that is done when take() may have more; cancel it to stop waiting."""
        return self._history.wakeup.next(now=self.newest != self._history.shown)

    def _about(self, after: int) -> list[Event]:
        found = self._history.since(after)
        return [event for event in found if self._service in ("", event.service)]
