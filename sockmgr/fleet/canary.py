"""How a canary goes on: the generation on trial proves itself on a share of the new connections.

Changes the generation only; fleet.py acts on what comes of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sockmgr.config.spec import Spec
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import (
    CanaryPassed,
    CanaryStep,
    CheckPassed,
    Phase,
    Promote,
    TakeBack,
)

NEWER = "a newer reload takes its place"

Told = Iterator[CanaryStep | CanaryPassed]


def needless(spec: Spec, lease: int | None, current: Generation | None) -> int:
    """Return how many steps a new generation of `spec` at `lease` need not take: none, or all."""
    steps = len(spec.rollout.canary.shares) if spec.rollout.canary else 0
    # A share is one of what others serve. Where nobody serves, waiting for proof helps no client.
    beside = current is not None and current.ready and not spec.rollout.exclusive
    own = current is not None and (lease is None or lease != current.lease)
    return 0 if beside and own else steps


def judge(trial: Generation, now: float, patience: float, *, newer: bool) -> Told:
    """Begin its canary or the next step of it, if the one before has ended well; or note the fault.

    `newer`: another reload waits. After the last step its missing workers have so much `patience`.
    """
    canary = trial.canary
    if canary is None or trial.fault:
        return
    if trial.phase is Phase.BOOTING:
        if trial.staffed:
            trial.become(Phase.CANARY, now)
            yield _step(trial, now)
    elif newer:
        # One that is held would keep the newer one waiting for ever, and what it proves by then is
        # not worth the time: the other is what somebody wants now.
        trial.condemn(NEWER)
    elif not trial.wanted:  # scaled to nothing, it has nothing to prove
        yield from _pass(trial, now, patience)
    elif now >= trial.deadline and canary.check and not trial.checked:
        trial.condemn(f"its check did not pass within {canary.seconds:g} s")
    elif now >= trial.deadline:
        trial.step += 1
        yield from (iter([_step(trial, now)]) if trial.canary else _pass(trial, now, patience))


def hear(
    trial: Generation | None, fact: Promote | TakeBack | CheckPassed, now: float, patience: float
) -> Told:
    """Take what somebody has decided about a generation, or what its check has found."""
    if trial is None or trial.number != fact.generation or trial.fault:
        return  # it has ended meanwhile, or is about to: its verdict tells how
    match fact:
        case TakeBack():
            trial.condemn(fact.why)
        case Promote():
            if trial.phase is Phase.CANARY and trial.canary:
                yield from _pass(trial, now, patience)
        case CheckPassed():
            trial.checked |= trial.step == fact.step


def _pass(trial: Generation, now: float, patience: float) -> Told:
    """Let it be proven: it is cut over as soon as all of its workers are ready."""
    canary = trial.spec.rollout.canary
    trial.step = len(canary.shares) if canary else 0
    if trial.instant:
        trial.deadline = now + patience  # some may be missing, if more are wanted by now
    else:
        trial.become(Phase.BOOTING, now, now + patience)
    yield CanaryPassed(generation=trial.number)


def _step(trial: Generation, now: float) -> CanaryStep:
    trial.take_step(now)
    canary = trial.spec.rollout.canary
    steps = len(canary.shares) if canary else 0
    return CanaryStep(generation=trial.number, step=trial.step, steps=steps, share=trial.share)
