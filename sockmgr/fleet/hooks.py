"""The hooks that a rollout waits for: which one is to run now, and which is to be ended.

`before` runs before the first worker of a generation, `ready` when all workers of one on trial are
ready, before the cut-over. A fleet runs one at a time, and no other before that one is known to be
dead: a migration must not run twice at once. The first generation has nothing to go back to, so its
`before` is tried again, later each time; it is asked for no `ready`, as nobody serves meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sockmgr.config.hooks import Moment
from sockmgr.fleet.generation import Generation, rollout_timeout
from sockmgr.fleet.messages import EndHook, HookDone, Phase, RunHook

if TYPE_CHECKING:
    from sockmgr.fleet.records import FleetRecords

END_AGAIN = 10.0  # a process that outlives SIGKILL waits in the kernel; try again and say so


@dataclass(slots=True, kw_only=True)
class HookRun:
    """The hook that runs, since when and until when; `ending`: it was told to end."""

    generation: int
    moment: Moment
    since: float
    deadline: float
    ending: bool = False


def turn(fleet: FleetRecords, now: float) -> list[RunHook | EndHook]:
    """Note and return which hook begins or is to end at this instant."""
    if fleet.hook:
        return _end(fleet, fleet.hook, now)
    due = _due(fleet, now)
    if due is None:
        return []
    generation, moment = due
    hook = generation.spec.hooks.at(moment)
    timeout = hook.timeout if hook else 0.0
    fleet.hook = HookRun(
        generation=generation.number, moment=moment, since=now, deadline=now + timeout
    )
    if generation is fleet.trial:
        generation.deadline = math.inf  # until it has ended only its own timeout counts
    return [RunHook(generation=generation.number, moment=moment, spec=generation.spec)]


def done(fleet: FleetRecords, fact: HookDone, now: float) -> None:
    """Take what a hook came to."""
    run, generation = fleet.hook, fleet.generations.get(fact.generation)
    if run is None or (run.generation, run.moment) != (fact.generation, fact.moment):
        return
    fleet.hook = None
    if fleet.down_since is not None and generation is fleet.current:
        fleet.down_since += now - run.since  # as if it had not been
    if generation is None or run.ending:  # nobody waits for it any more
        return
    if not fact.fault:
        generation.passed |= {fact.moment}
    elif generation is fleet.trial:
        generation.condemn(f"hook {fact.moment} {fact.fault}")
    else:
        generation.back_off(now, steady=False)
    if generation is fleet.trial:
        old = fleet.current.spec if fleet.current else None
        generation.deadline = now + rollout_timeout(generation.spec, generation.wanted, old)


def late(fleet: FleetRecords, trial: Generation, now: float) -> str:
    """Say what the generation on trial, which boots, has waited for too long; "" if nothing."""
    run = fleet.hook
    if run and run.generation == trial.number:
        return _too_long(run) if now >= run.deadline else ""
    if now < trial.deadline:
        return ""
    if run and trial.owes(Moment.BEFORE):
        return f"hook before could not begin: hook {run.moment} of {run.generation} does not die"
    return f"not all of {trial.wanted} workers were ready in time"


def deadlines(fleet: FleetRecords, now: float) -> Iterator[float]:
    """Yield the instants at which a hook is to begin or to end though nothing happens."""
    current = fleet.current
    if fleet.hook:
        yield fleet.hook.deadline
    elif current and not fleet.trial and not fleet.stopping and current.owes(Moment.BEFORE):
        yield max(now, _not_before(current))


def _due(fleet: FleetRecords, now: float) -> tuple[Generation, Moment] | None:
    trial, current = fleet.trial, fleet.current
    if fleet.stopping:
        return None
    if trial and trial.phase is Phase.BOOTING and now >= trial.held_until:
        if trial.owes(Moment.BEFORE):
            return trial, Moment.BEFORE
        # One that rolls gets its share as a canary before all of it is there.
        met = trial.staffed if trial.canary else trial.full
        return (trial, Moment.READY) if met and trial.owes(Moment.READY) else None
    # What is on trial is newer: should it be taken back, the old one is tried again.
    if current and not trial and current.owes(Moment.BEFORE) and now >= _not_before(current):
        return current, Moment.BEFORE
    return None


def _not_before(generation: Generation) -> float:
    # A service that starts after others waits for them with its hook as well.
    return max(generation.not_before, generation.held_until)


def _end(fleet: FleetRecords, run: HookRun, now: float) -> list[RunHook | EndHook]:
    generation, is_late = fleet.generations.get(run.generation), now >= run.deadline
    # Its own time ends a rollout as well: then that is why, and not the end of the rollout.
    wanted = generation is not None and generation in (fleet.trial, fleet.current)
    if run.ending:
        why = "still there after SIGKILL" if is_late else ""
    elif fleet.stopping:
        why = "stop"
    elif is_late:
        why = _too_long(run)
        if wanted and generation:
            generation.back_off(now, steady=False)
    else:
        why = "" if wanted else "its rollout has ended"
    if not why:
        return []
    run.ending, run.deadline = True, now + END_AGAIN
    return [EndHook(generation=run.generation, moment=run.moment, why=why)]


def _too_long(run: HookRun) -> str:
    return f"hook {run.moment} did not end within {run.deadline - run.since:g} s"
