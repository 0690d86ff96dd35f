"""What a dispatcher of one service tells, and how long it waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sockmgr.programs.dispatcher.messages import Say


class Timing(NamedTuple):
    """Durations, in seconds."""

    take: float = 2.0  # a worker that takes nothing for so long gives back what waits for it ...
    replace: float = 60.0  # ... and is to be replaced so much later
    rest: float = 0.05  # before the next try when files or memory ran out; it doubles ...
    longest_rest: float = 1.0  # ... up to this


USUAL = Timing()


class Events(NamedTuple):
    """Callbacks of the dispatcher; none is called from within one of its own methods but `say`.

    They are told of leases, and of channels by their id.
    """

    takes: Callable[[int, int], object]  # the worker of this lease takes, by this channel, now
    misbehaves: Callable[[int, str], object]  # it is to be replaced, for this reason
    quiet: Callable[[int], object]  # it has nothing waiting, as was asked for
    emptied: Callable[[int], object]  # this channel, of a worker that is gone, has nothing in it
    say: Say
