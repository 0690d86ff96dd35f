"""A failure, made shorter: steps are left out, and numbers made small, while it fails alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.schedule import Failure, kind_of, play
from tests.simulation.steps import PROMPT, Step


def shrunk(failure: Failure) -> Failure:
    """Return the failure with as few steps as delta debugging finds; no step can be left out."""
    if not _fails(failure, failure.steps):
        return failure
    taken = list(failure.steps)
    size = max(1, len(taken) // 2)
    while size:
        taken, did = _without(failure, taken, size)
        if not did or size > len(taken):
            size //= 2
    for place in range(len(taken)):
        for simpler in _simpler(taken[place]):
            if _fails(failure, tried := [*taken[:place], simpler, *taken[place + 1 :]]):
                taken = tried
                break
    found = replace(failure, steps=taken)
    return replace(found, what=play(found.family, taken, settles=found.settles))


def _without(failure: Failure, taken: list[Step], size: int) -> tuple[list[Step], bool]:
    """Leave out so many steps at a time wherever that still fails; tell whether any was."""
    did, start = False, 0
    while start < len(taken):
        if _fails(failure, tried := taken[:start] + taken[start + size :]):
            taken, did = tried, True
        else:
            start += size
    return taken, did


def _simpler(step: Step) -> Iterator[Step]:
    for number in (0, 1, 2, 3, step.number % 16):
        if number < step.number:
            yield Step(step.verb, number, PROMPT)
            yield Step(step.verb, number, step.when)
    if step.when != PROMPT:
        yield Step(step.verb, step.number)


def _fails(failure: Failure, taken: list[Step]) -> bool:
    return kind_of(play(failure.family, taken, settles=failure.settles)) == failure.kind
