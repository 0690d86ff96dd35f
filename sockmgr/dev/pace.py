"""Decides when to look at what changed, and when to reload. A state machine, without I/O or clock.

The caller says what happened (`noticed`, `looked`, `found`, `ask`, `served`, `ended`), then takes
steps with `next` until there is none, and comes again at `deadline`. A reload runs from its step to
`ended`.

The last save always serves in the end, because a save is forgotten only when a reload begins after
it. A file that was written while a generation was starting counts even if its content is the same
again: the generation may have read other content in between.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

# All times are in seconds.
QUIET = 0.005  # watchfiles waits for the end of a save, but may report the save in two events
UNREST = 0.25  # if events do not end, the files are looked at after this time
PIECES = 0.04  # events of one operation that goes on are not further apart than this
BULK = 3  # this many files at once come from a checkout or a formatter, not from a save ...
BULK_QUIET = 0.15  # ... and more may come after a pause as long as this
LONGEST = 2.0  # a reload does not wait for the end of changes any longer than this
TAIL = 0.05  # the kernel may report an event this much later than it happened
PATIENCE = 1.0  # a start with old code may take this long while newer code waits ...
HANG = 10.0  # ... and this long if the start before it was given up: one must get through
HABIT = 2  # after more starts in a row that rewrite a file as it was, the application does it
CHASE = 5  # after this many reloads that only the start before seems to have caused, pause
CHASE_PAUSE_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """Compare the watched files with what was in them."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Reload because these files changed; because somebody asked if there are none."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Abort the start that is under way, because newer code waits."""


Step = Look | Reload | GiveUp


class Pace:
    """Turns events of the file system into looks and reloads. Instants are of one clock."""

    def __init__(self, now: float) -> None:
        """Begin at `now` in the first start, which ends as a reload does."""
        self._first_event_at = math.inf  # the first event that has not been looked at
        self._last_event_at = -math.inf  # the last event
        self._in_burst = False  # the last event came soon after the one before
        self._looking: tuple[float, float] | None = None  # first and last event of the current look
        self._changed: dict[str, None] = {}
        self._changed_at = math.inf
        self._asked = False
        self._began_at, self._ended_at = now, math.inf
        self._served_at = math.inf  # when the code of this start began to take requests
        self._gave_up = self._gave_up_before = False
        self._rewrites: dict[str, int] = {}
        self.habits: set[str] = set()  # files that every start rewrites as they were
        self._chased = False  # every change that waits for the next reload fell into the last start
        self._chase = 0  # how many reloads in a row were caused by such changes only

    @property
    def chasing(self) -> bool:
        """Whether each reload seems to cause the next one."""
        return self._chase >= CHASE

    # --- What happened -----------------------------------------------------------------------

    def noticed(self, now: float) -> None:
        self._first_event_at = min(self._first_event_at, now)
        self._in_burst = now - self._last_event_at <= PIECES
        self._last_event_at = now

    def looked(self, changed: Iterable[str], rewritten: Iterable[str], now: float) -> None:
        """Note the result of a look: files with other content, and files with the same content."""
        began, ended = self._looking or (now, now)
        self._looking = None
        in_start = ended >= self._began_at and began <= self._ended_at + TAIL
        found = list(changed)
        for path in found:
            self._rewrites.pop(path, None)
        for path in rewritten if in_start else ():
            found += [path] if self._may_have_been_read(path) else []
        # A change after the code served may be an edit of what the developer has just seen, so it
        # does not count as the application's own.
        self.found(found, now, in_start=in_start and ended < self._served_at)

    def found(self, paths: Collection[str], now: float, *, in_start: bool = False) -> None:
        """Note that files have changed since the last start began; `in_start`: during the start."""
        if not paths:
            return
        if not self._changed:
            self._changed_at, self._chased = now, True
        self._changed.update(dict.fromkeys(paths))
        self._chased = self._chased and in_start

    def ask(self) -> None:
        self._asked = True

    def served(self, now: float) -> None:
        """Note that the started code takes requests, though its verdict is still to come."""
        self._served_at = min(self._served_at, now)

    def ended(self, now: float) -> None:
        """Note that the reload, or the first start, has its verdict."""
        self._ended_at = now
        self.served(now)
        self._gave_up_before, self._gave_up = self._gave_up, False

    # --- What to do --------------------------------------------------------------------------

    def next(self, now: float) -> Step | None:
        """Return the next step, None if there is none now; call again after each step."""
        if self._looking is None and now >= self._look_at:
            self._looking = (self._first_event_at, self._last_event_at)
            self._first_event_at = math.inf
            return Look()
        if now < self._act_at:
            return None
        if self._is_starting:
            self._gave_up = True
            return GiveUp()
        return self._begin(now)

    @property
    def deadline(self) -> float:
        """When `next` will have a step even if nothing else happens; inf: never."""
        look_at = self._look_at if self._looking is None else math.inf
        return min(look_at, self._act_at)

    # Private

    @property
    def _is_starting(self) -> bool:
        return self._ended_at == math.inf

    @property
    def _look_at(self) -> float:
        latest = self._first_event_at + UNREST
        return latest if latest == math.inf else min(self._last_event_at + QUIET, latest)

    @property
    def _act_at(self) -> float:
        """When to begin a reload; if a start is under way, when to give that up."""
        if not (self._changed or self._asked):
            return math.inf
        if not self._is_starting:
            return self._due_at
        if self._gave_up:
            return math.inf
        return max(self._due_at, self._began_at + (HANG if self._gave_up_before else PATIENCE))

    @property
    def _due_at(self) -> float:
        if self._asked:
            return -math.inf
        latest = self._changed_at + LONGEST
        if self._first_event_at < math.inf or self._looking:
            return latest
        paused = self._ended_at + min(CHASE_PAUSE_MAX, 0.5 * max(0, self._chase - CHASE))
        bulk = len(self._changed) >= BULK
        quiet = BULK_QUIET if bulk else PIECES if self._in_burst else -math.inf
        due = max(self._changed_at, min(self._last_event_at + quiet, latest))
        return max(due, paused if self._chased and not self._is_starting else due)

    def _begin(self, now: float) -> Reload:
        paths = tuple(self._changed)
        self._rewrites = {p: n for p, n in self._rewrites.items() if p in self._changed}
        self._chase = self._chase + 1 if paths and self._chased else 0
        self._changed, self._changed_at = {}, math.inf
        self._asked = False
        self._began_at, self._ended_at, self._served_at = now, math.inf, math.inf
        return Reload(paths)

    def _may_have_been_read(self, path: str) -> bool:
        if path in self.habits:
            return False
        self._rewrites[path] = self._rewrites.get(path, 0) + 1
        if self._rewrites[path] > HABIT:
            self.habits.add(path)
        return path not in self.habits
