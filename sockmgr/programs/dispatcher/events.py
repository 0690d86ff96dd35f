"""What a dispatcher of one service tells, and how long it waits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sockmgr.programs.dispatcher.loop import Loop
from sockmgr.programs.dispatcher.messages import Say


class Timing:
    """Durations, in seconds."""

    __slots__ = ("longest_rest", "replace", "rest", "take")

    def __init__(
        self,
        take: float = 2.0,
        replace: float = 60.0,
        rest: float = 0.05,
        longest_rest: float = 1.0,
    ) -> None:
        """Have a worker that takes nothing for `take` give back what waits for it.

        It is to be replaced `replace` later. `rest` is before the next try when files or memory ran
        out; it doubles up to `longest_rest`.
        """
        self.take, self.replace = take, replace
        self.rest, self.longest_rest = rest, longest_rest


class Events:
    """Callbacks of the dispatcher; none is called from within one of its own methods but `say`."""

    __slots__ = ("emptied", "misbehaves", "quiet", "say", "takes")

    def __init__(
        self,
        takes: Callable[[int], object],
        misbehaves: Callable[[int, str], object],
        quiet: Callable[[int], object],
        emptied: Callable[[int], object],
        say: Say,
    ) -> None:
        """Hear of leases, and of channels by their id.

        `takes`: the worker of this lease takes connections, for the first time. `misbehaves`: it is
        to be replaced, for this reason. `quiet`: it has nothing waiting, as was asked for.
        `emptied`: this channel, of a worker that is gone, has nothing in it any more.
        """
        self.takes, self.misbehaves, self.quiet = takes, misbehaves, quiet
        self.emptied, self.say = emptied, say


class Later:
    """Calls back in the next turn of the loop, when what happened now is over."""

    def __init__(self, loop: Loop, events: Events) -> None:
        """Call these."""
        self._loop, self._events = loop, events

    def takes(self, lease: int) -> None:
        """Tell that a worker takes connections."""
        self._loop.call_soon(partial(self._events.takes, lease))

    def misbehaves(self, lease: int, why: str) -> None:
        """Tell that a worker is to be replaced."""
        self._loop.call_soon(partial(self._events.misbehaves, lease, why))

    def quiet(self, lease: int) -> None:
        """Tell that nothing waits for a worker."""
        self._loop.call_soon(partial(self._events.quiet, lease))

    def emptied(self, channel: int) -> None:
        """Tell that nothing is left in a channel."""
        self._loop.call_soon(partial(self._events.emptied, channel))
