"""What a rollout costs, measured while it runs. Reads counters; changes nothing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Sequence

from sockmgr.api.types import DrainingGeneration, Receipt, WarmUp
from sockmgr.fleet.messages import State, WorkerId
from sockmgr.kernel.queues import listen_overflows
from sockmgr.manager.listeners.listener import Listener


class Measurement:
    """Counts from its creation, at the start of a rollout, until `receipt`."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._overflows = _overflows()
        self._ended = {State.DRAINING: 0, State.KILLED: 0}
        self._died = self._moved = 0
        self._warmed: list[WarmUp] = []
        for listener in listeners:
            listener.take_peak()  # forget what was before

    def count_exit(self, state: State, *, well: bool, moved: int) -> None:
        """Count a worker that ended in this state, and the connections that it gave to others.

        `well` says whether it ended cleanly.
        """
        self._moved += moved
        if not well:
            self._died += 1
        elif state in self._ended:
            self._ended[state] += 1

    def count_warm_up(self, warmed: WarmUp) -> None:
        self._warmed.append(warmed)

    def receipt(self, draining: Collection[WorkerId], finishing: int) -> Receipt:
        """Sum up; the workers `draining` have not ended yet, `finishing` of them must end now."""
        left = Counter(worker.generation for worker in draining)
        cutovers = {listener.cutover for listener in self._listeners}
        return Receipt(
            queue_peak=max((listener.take_peak() for listener in self._listeners), default=0),
            overflows=max(0, _overflows() - self._overflows),
            drained=self._ended[State.DRAINING],
            killed=self._ended[State.KILLED],
            draining=len(draining),
            draining_generations=tuple(
                DrainingGeneration(generation=generation, workers=number)
                for generation, number in sorted(left.items())
            ),
            finishing=finishing,
            died=self._died,
            moved=self._moved,
            warm_up=_together(self._warmed),
            cutover=cutovers.pop() if len(cutovers) == 1 else "overlap" if cutovers else "none",
        )


def _together(warmed: Sequence[WarmUp]) -> WarmUp | None:
    if not warmed:
        return None
    return WarmUp(
        requests=sum(each.requests for each in warmed),
        failed=sum(each.failed for each in warmed),
        first=max(each.first for each in warmed),
        last=max(each.last for each in warmed),
        is_cut=any(each.is_cut for each in warmed),
    )


def _overflows() -> int:
    # The kernel counts overflows per network namespace, so those of other programs are included.
    with contextlib.suppress(OSError):  # no descriptor is left to read it with
        return listen_overflows()
    return 0
