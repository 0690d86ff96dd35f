"""Pauses when files or memory ran out; no event says when they are back, so pauses get longer."""

from __future__ import annotations

import errno
from collections.abc import Callable

from sockmgr.programs.dispatcher.loop import Loop, Timer
from sockmgr.programs.dispatcher.messages import CONNECTIONS_WAIT, Say

# They pass by themselves: too many files, here or on their way to workers, or no memory.
SHORT = frozenset({
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS,
})  # fmt: skip


class Backoff:
    """One pause at a time. Owns its timer; says the first of several pauses, and their end."""

    def __init__(
        self, loop: Loop, say: Say, again: Callable[[], None], first: float, longest: float
    ) -> None:
        """Call `again` after each rest: `first` seconds, then twice as long, up to `longest`."""
        self._loop, self._say, self._again = loop, say, again
        self._first, self._longest = first, longest
        self._next = first
        self._timer: Timer | None = None

    @property
    def resting(self) -> bool:
        """Whether a pause is running, in which nothing is tried."""
        return self._timer is not None

    def rest(self, what: str, error: OSError) -> None:
        """Begin a pause because `what` failed with `error`."""
        if self._timer:
            return
        if self._next == self._first:
            do = "look at the listener"
            if error.errno in SHORT:
                do = "raise LimitNOFILE= or ulimit -n of the manager"
            why = f"cannot {what}: {(error.strerror or '').lower()}"
            means = "they are tried again until it works"
            self._say("error", CONNECTIONS_WAIT, why=why, means=means, do=do)
        self._timer = self._loop.call_later(self._next, self._rested)
        self._next = min(2 * self._next, self._longest)

    def succeeded(self) -> None:
        """Note a success: the next pause is short again."""
        if self._next != self._first:
            self._next = self._first
            self._say("info", "connections are passed on again")

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _rested(self) -> None:
        self._timer = None
        self._again()
