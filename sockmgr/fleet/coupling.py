"""What the other services of a manager do to one fleet: they let it go on, or it goes back as they.

Each function takes the steps in the records of that one fleet. When to tell it what, together.py
and order.py know, which see all fleets.
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from sockmgr.fleet.generation import Generation, rollout_timeout
from sockmgr.fleet.messages import GoBack, Let, Released, WaitedInVain
from sockmgr.fleet.records import FleetRecords

Coupled = Let | GoBack | Released


def take(fleet: FleetRecords, fact: Coupled, now: float) -> None:
    """Note what other services have come to."""
    match fact:
        case Let():
            _let(fleet, fact)
        case GoBack():
            _go_back(fleet, fact)
        case Released():
            for generation in _going(fleet):
                _release(fleet, generation, now)


def held(now: float, patience: float) -> float:
    """Return until when a generation is held that may wait so many seconds for other services."""
    return now + patience if patience else -math.inf


def tire(fleet: FleetRecords, now: float) -> list[WaitedInVain]:
    """Let go on whoever was held for long enough, though those that it is after do not serve."""
    held = [each for each in _going(fleet) if -math.inf < each.held_until <= now]
    for generation in held:
        generation.held_until = -math.inf
    return [WaitedInVain(generation=generation.number) for generation in held]


def _let(fleet: FleetRecords, fact: Let) -> None:
    pending, trial, group = fleet.pending, fleet.trial, fact.together.group
    if pending and pending.together and pending.together.group == group:
        fleet.pending = replace(pending, together=fact.together)
    if trial and trial.together and trial.together.group == group:
        trial.together = fact.together


def _go_back(fleet: FleetRecords, fact: GoBack) -> None:
    trial = fleet.trial
    # Its own fault, if it has one as well, tells more.
    if trial and trial.together and trial.together.group == fact.group and not trial.fault:
        trial.condemn(f"{fact.failed} was taken back, and they go together")
        trial.failed = fact.failed


def _release(fleet: FleetRecords, generation: Generation, now: float) -> None:
    if generation.held_until > now and generation is fleet.trial:
        # What it had not to wait for is not given to its workers.
        old = fleet.current.spec if fleet.current else None
        generation.deadline = now + rollout_timeout(generation.spec, generation.wanted, old)
    generation.held_until = -math.inf


def _going(fleet: FleetRecords) -> list[Generation]:
    return [each for each in (fleet.current, fleet.trial) if each]
