"""One-line edits of the core that the suite must notice: a green suite may just have been lucky.

`python -m tests.core.mutants NAME` tries one: transcripts, then examples, then properties, and says
which of them noticed. Without a name it tries the real code by the same route.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

FLEET = "sockmgr.core.fleet"
TARGETS = "sockmgr.core.targets"
GENERATION = "sockmgr.core.generation"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Mutant:
    """Replace `old`, which occurs once in `module`, by `new`."""

    name: str
    module: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "replace from the trial only",
        FLEET,
        "for generation in filter(None, (self.current, self.trial)):\n            starting",
        "for generation in filter(None, (self.trial or self.current,)):\n            starting",
    ),
    Mutant(
        "commit without probation",
        FLEET,
        "(self._now >= trial.deadline or not trial.wanted)",
        "(self._now >= trial.since or not trial.wanted)",
    ),
    Mutant(
        "forget who waited before",
        FLEET,
        "dict.fromkeys(fact.left[1:], self._now)",
        "dict.fromkeys(fact.left[:0], self._now)",
    ),
    Mutant("abort never", FLEET, "if trial.fault:", "if trial.fault and self.stopping:"),
    Mutant(
        "let a rollout wait for ever",
        FLEET,
        "trial.phase is Phase.BOOTING and self._now >= trial.deadline",
        "trial.phase is Phase.BOOTING and self._now >= math.inf",
    ),
    Mutant(
        "forget to feed back after an abort",
        FLEET,
        "if not leases or leases == self.fed:",
        "if not leases or leases == self.fed or (self.fed and not self.trial):",
    ),
    Mutant(
        "drain before quiet",
        FLEET,
        "if self.stopping or not targets.keeps(worker.lease):",
        "if self.stopping or worker.lease is not None:",
    ),
    Mutant(
        "back off the wrong generation",
        FLEET,
        "generation.back_off(self._now, steady=steady)",
        "(self.current or generation).back_off(self._now, steady=steady)",
    ),
    Mutant("never back off", GENERATION, "if self.failures:", "if self.failures < 0:"),
    Mutant(
        "run the oldest of the reloads that waited",
        FLEET,
        "self.pending = fact",
        "self.pending = self.pending or fact",
    ),
    Mutant(
        "drop verdicts on stop",
        FLEET,
        "self._refuse(self.pending_requests)",
        "self._now += 0",
    ),
    Mutant(
        "no deadline while draining",
        FLEET,
        "deadline = self._now + generation.spec.drain_timeout",
        "deadline = math.inf",
    ),
    Mutant(
        "kill once and then hope",
        FLEET,
        "worker.deadline = self._now + KILL_AGAIN",
        "worker.deadline = math.inf",
    ),
    Mutant(
        "one failed start too many",
        GENERATION,
        "elif self.failed_starts >= limit:",
        "elif self.failed_starts > limit:",
    ),
    Mutant(
        "forgive a death in probation",
        GENERATION,
        "if worker.ready_at <= now:",
        "if worker.ready_at <= now and self.phase is not Phase.PROBATION:",
    ),
    Mutant(
        "reuse a lease that holds connections",
        TARGETS,
        "for w in self._workers()} | set(self.unquiet)",
        "for w in self._workers()}",
    ),
    Mutant(
        "let nobody inherit the queue of the dead",
        TARGETS,
        "if self.current and (spec.rollout.exclusive or not self._served(self.current.lease)):",
        "if self.current and spec.rollout.exclusive:",
    ),
    Mutant(
        "drain the ready before the starting",
        TARGETS,
        "(generation.members, key=lambda w: (w.state is State.STARTING, w.id.slot))",
        "(generation.members, key=lambda w: (w.state is State.READY, w.id.slot))",
    ),
    Mutant(
        "recycle before the successor is ready",
        TARGETS,
        "[0 if self.exclusive else max(0, target - ready) :]",
        "[0:]",
    ),
    Mutant(
        "feed those that are to go",
        TARGETS,
        "for g in candidates if g.ready and self.target(g)]",
        "for g in candidates if g.ready]",
    ),
    Mutant(
        "feed the unproven beside the current",
        TARGETS,
        "rolling = [trial] if trial and self._mixing else []",
        "rolling = [trial] if trial else []",
    ),
    Mutant(
        "a new budget of spawns in every round",
        FLEET,
        "self._budget -= min(self._budget, len(missing))",
        "self._budget -= 0",
    ),
    Mutant(
        "start an exclusive one beside those that drain",
        TARGETS,
        "others = any(w.id.generation != generation.number for w in self._workers())",
        "others = any(w.id.generation != generation.number and w.active for w in self._workers())",
    ),
    Mutant(
        "forget connections that nobody takes",
        TARGETS,
        "return lacking + (self._abandoned() if rescuing else [])",
        "return lacking",
    ),
    Mutant(
        "forget connections that living workers do not take",
        TARGETS,
        "return self.late_at(lease) if rescued or not self._rescuers else math.inf",
        "return self.late_at(lease)",
    ),
    Mutant(
        "wait for Quiet for ever",
        TARGETS,
        "return lease in self.unquiet and self.now < self.late_at(lease)",
        "return lease in self.unquiet",
    ),
    Mutant(
        "rescue for ever",
        TARGETS,
        "return self.late_at(lease) if rescued or not self._rescuers else math.inf",
        "return self.late_at(lease) if not self._rescuers else math.inf",
    ),
    Mutant(
        "send no rescue the time it needs",
        FLEET,
        "self.unquiet[worker.lease] = self._now  # only",
        "self._now += 0  # only",
    ),
    Mutant(
        "scale the current generation only",
        FLEET,
        "(self.current, self.trial)):\n            generation.rolling",
        "(self.current,)):\n            generation.rolling",
    ),
    Mutant(
        "take a rollout for instant once it is scaled so far down",
        FLEET,
        "generation.rolling = not generation.instant",
        "pass",
    ),
    Mutant(
        "lose the scaled number at the next reload",
        FLEET,
        "wanted = current.wanted",
        "wanted = spec.workers",
    ),
    Mutant(
        "surge by one more",
        TARGETS,
        "+ surge - len(current.members)",
        "+ surge + 1 - len(current.members)",
    ),
    Mutant(
        "boot one more at a time",
        FLEET,
        "room = max(0, generation.spec.rollout.start_concurrency - starting)",
        "room = max(0, generation.spec.rollout.start_concurrency + 1 - starting)",
    ),
    Mutant(
        "let one more generation drain",
        TARGETS,
        "draining[: max(0, len(draining) - allowed)]",
        "draining[: max(0, len(draining) - allowed - 1)]",
    ),
    Mutant(
        "help out for ever",
        TARGETS,
        "late = self.now >= generation.deadline and served",
        "late = self.now >= math.inf and served",
    ),
)


def installed(name: str) -> bool:
    """Whether the mutant called `name` is what is imported."""
    module = sys.modules.get(named(name).module)
    return getattr(module, "__mutant__", "") == name


def named(name: str) -> Mutant:
    """Return the mutant called `name`."""
    return next(m for m in MUTANTS if m.name == name)


def mutated(mutant: Mutant) -> str:
    """Return the module's text with the edit made, which must apply exactly once."""
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text(encoding="utf-8")
    found = text.count(mutant.old)
    assert found == 1, f"mutant {mutant.name!r}: its text is {found} times in {mutant.module}"
    return text.replace(mutant.old, mutant.new)


def install(name: str) -> None:
    """Put the mutant called `name` in the place of the real module, for all who import it."""
    mutant = named(name)
    text = mutated(mutant)
    assert mutant.module not in sys.modules, "too late: the real module is imported already"
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__mutant__"] = name
    sys.modules[mutant.module] = module
    exec(compile(text, f"<mutant {name}>", "exec"), module.__dict__)


def main(arguments: list[str]) -> int:
    """Try one mutant; print what noticed it, or `green`."""
    for name in arguments:
        install(name)
        os.environ["SOCKMGR_MUTANT"] = name
    if _transcripts_differ():
        print("transcripts")
        return 1
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    import pytest  # noqa: PLC0415 - most mutants need no more than the transcripts

    for what in ("test_fleet.py", "test_fleet_serving.py", "test_fleet_properties.py"):
        if pytest.main(["-q", "-x", "--no-header", "-p", "no:cacheprovider", str(HERE / what)]):
            print(what)
            return 1
    print("green")
    return 0


def _transcripts_differ() -> bool:
    from tests.core.transcripts import files, replay  # noqa: PLC0415 - after the mutant is installed

    try:
        return any(replay(path.read_text()) != path.read_text() for path in files())
    except (AssertionError, LookupError, ValueError):
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
