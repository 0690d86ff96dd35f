"""Decides when to look at what changed, and when to reload. A state machine, without I/O or clock.

The caller says what happened (`stirred`, `looked`, `asked`, `ended`), then takes steps with `next`
until there is none, and comes again at `deadline`. A reload runs from its step to `ended`.

What was saved last serves in the end, because a save is forgotten only by a reload that begins
after it. A file whose content is what it was counts as well if it was written while a generation
was starting: what stood there meanwhile may have been read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

QUIET = 0.005  # who tells of changes has waited for the end of a save already, but may tell twice
UNREST = 0.25  # events that do not end are looked at after so long
PIECES = 0.04  # what goes on is told in pieces, not further apart than this
BULK = 3  # this many files at once come from a checkout or a formatter, not from a save ...
BULK_QUIET = 0.15  # ... and more may come after a pause
LONGEST = 2.0  # after this time changes are not waited for any longer
TAIL = 0.05  # the kernel may report an event this much later than it happened
PATIENCE = 1.0  # a start with old code may take this long while newer code waits ...
HANG = 10.0  # ... and this long if the start before it was given up, so that one gets through
HABIT = 2  # a file rewritten as it was in this many starts in a row is written by the application
CHASE = 5  # so many reloads by what changed during the start before: pause between them
CHASE_PAUSE_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """Compare what stirred with what was there."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Reload because of these paths; none: somebody asked."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the start that is under way: newer code waits."""


Step = Look | Reload | GiveUp


class Pace:
    """Between the events of the file system and the reloads."""

    def __init__(self, now: float) -> None:
        """Begin in the first start, which ends as a reload does."""
        self._stirred_at = math.inf  # since when something waits to be looked at
        self._stirred_last = -math.inf
        self._goes_on = False  # the last was told soon after another
        self._looking: tuple[float, float] | None = None  # at what happened from and until when
        self._changed: dict[str, None] = {}
        self._changed_at = math.inf
        self._asked = False
        self._began_at, self._ended_at = now, math.inf
        self._served_at = math.inf  # since when the code of this start takes requests
        self._gave_up = self._gave_up_before = False
        self._rewrites: dict[str, int] = {}
        self._habits: set[str] = set()
        self._chased = False  # all that waits for the next reload happened during the last start
        self._chase = 0

    @property
    def habits(self) -> frozenset[str]:
        """Return the files that every start writes as they were."""
        return frozenset(self._habits)

    @property
    def chasing(self) -> bool:
        """Whether each reload seems to cause the next."""
        return self._chase >= CHASE

    # --- What happened -----------------------------------------------------------------------

    def stirred(self, now: float) -> None:
        """Something may have changed."""
        self._stirred_at = min(self._stirred_at, now)
        self._goes_on = now - self._stirred_last <= PIECES
        self._stirred_last = now

    def looked(self, changed: Iterable[str], rewritten: Iterable[str], now: float) -> None:
        """The look has ended: these have another content, those were written as they were."""
        began, ended = self._looking or (now, now)
        self._looking = None
        in_start = ended >= self._began_at and began <= self._ended_at + TAIL
        found = list(changed)
        for path in found:
            self._rewrites.pop(path, None)
        for path in rewritten if in_start else ():
            found += [path] if self._may_have_been_read(path) else []
        # Who edits what they have just seen is no application that changes its own files.
        self.found(found, now, in_start=in_start and ended < self._served_at)

    def found(self, paths: Collection[str], now: float, *, in_start: bool = False) -> None:
        """These are known to have changed since the last start began, or even during it."""
        if not paths:
            return
        if not self._changed:
            self._changed_at, self._chased = now, True
        self._changed.update(dict.fromkeys(paths))
        self._chased = self._chased and in_start

    def ask(self) -> None:
        """Somebody wants a reload."""
        self._asked = True

    def served(self, now: float) -> None:
        """What was started takes requests now; its verdict is still to come."""
        self._served_at = min(self._served_at, now)

    def ended(self, now: float) -> None:
        """The reload, or the first start, has its verdict."""
        self._ended_at = now
        self.served(now)
        self._gave_up_before, self._gave_up = self._gave_up, False

    # --- What to do --------------------------------------------------------------------------

    def next(self, now: float) -> Step | None:
        """Return what to do now, if there is something; ask again after that."""
        if self._looking is None and now >= self._look_at:
            self._looking = (self._stirred_at, self._stirred_last)
            self._stirred_at = math.inf
            return Look()
        if now < self._act_at:
            return None
        if self._is_starting:
            self._gave_up = True
            return GiveUp()
        return self._begin(now)

    @property
    def deadline(self) -> float:
        """The instant at which `next` has something though nothing happens; inf: none."""
        look_at = self._look_at if self._looking is None else math.inf
        return min(look_at, self._act_at)

    # Private

    @property
    def _is_starting(self) -> bool:
        return self._ended_at == math.inf

    @property
    def _look_at(self) -> float:
        latest = self._stirred_at + UNREST
        return latest if latest == math.inf else min(self._stirred_last + QUIET, latest)

    @property
    def _act_at(self) -> float:
        """When to begin a reload, or, if a start is under way, when to give that up."""
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
        if self._stirred_at < math.inf or self._looking:
            return latest
        paused = self._ended_at + min(CHASE_PAUSE_MAX, 0.5 * max(0, self._chase - CHASE))
        bulk = len(self._changed) >= BULK
        quiet = BULK_QUIET if bulk else PIECES if self._goes_on else -math.inf
        due = max(self._changed_at, min(self._stirred_last + quiet, latest))
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
        if path in self._habits:
            return False
        self._rewrites[path] = self._rewrites.get(path, 0) + 1
        if self._rewrites[path] > HABIT:
            self._habits.add(path)
        return path not in self._habits
