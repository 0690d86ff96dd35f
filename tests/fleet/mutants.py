"""One-line edits of pure code that the suite must notice: a green suite may just have been lucky.

`python -m tests.fleet.mutants NAME` tries one: transcripts, then examples, then properties, and
says which of them noticed. Without a name it tries the real code by the same route.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

FLEET = "sockmgr.fleet.fleet"
TURNOVER = "sockmgr.fleet.turnover"
TARGETS = "sockmgr.fleet.targets"
LEASES = "sockmgr.fleet.leases"
SNAPSHOT = "sockmgr.fleet.snapshot"
GENERATION = "sockmgr.fleet.generation"
SCHEDULER = "sockmgr.manager.dispatch.scheduler"
LEDGER = "sockmgr.manager.dispatch.ledger"
HERE = Path(__file__).parent
EXAMPLES = (
    "test_fleet.py", "test_fleet_serving.py", "test_fleet_ends.py", "test_own_leases.py",
    "test_fleet_properties.py",
)  # fmt: skip
OF_DISPATCH = ("../manager/dispatch/test_ledger.py", "../manager/dispatch/test_scheduler.py")


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
        TURNOVER,
        "for generation in filter(None, (targets.current, targets.trial)):",
        "for generation in filter(None, (targets.trial or targets.current,)):",
    ),
    Mutant(
        "put off the successor of one that has served",
        GENERATION,
        "self.failures, self.not_before = 0, -math.inf",
        "self.failures = 0",
    ),
    Mutant(
        "take back a rollout for a worker that has served",
        FLEET,
        "        if done:\n            generation.recycle(worker)\n            return\n",
        "        if done:\n            generation.recycle(worker)\n",
    ),
    Mutant(
        "call every clean end a recycle",
        GENERATION,
        "return (took and known) or now - worker.ready_at >= enough",
        "return True or known or enough",
    ),
    Mutant(
        "call a crash a recycle",
        LEASES,
        "return unasked and fact.status in clean and self",
        "return unasked and clean and self",
    ),
    Mutant(
        "believe for ever that those who were never ready served",
        GENERATION,
        "or self.unseen < UNSEEN",
        "or self.unseen < math.inf",
    ),
    Mutant(
        "take a guess for proof",
        GENERATION,
        "enough = STEADY if isinstance(self.spec.ready, Delay) else SERVED",
        "enough = SERVED if isinstance(self.spec.ready, Delay) else SERVED",
    ),
    Mutant(
        "let clients wait through the longest pause",
        FLEET,
        "generation.not_before = self._now + HURRY",
        "generation.not_before += HURRY - HURRY",
    ),
    Mutant(
        "hurry whatever somebody serves",
        TARGETS,
        "if self.stopping or any(w.state is State.READY and not w.hung for w in self.workers()):",
        "if self.stopping:",
    ),
    Mutant(
        "feed half a generation on trial again",
        LEASES,
        "trial.ready and (trial.full or trial.served & dict(self.fed).keys()):",
        "trial.ready:",
    ),
    Mutant(
        "never kill whom max_draining lets finish",
        TURNOVER,
        "worker.finishing, worker.deadline = True, min(worker.deadline, now + FINISH)",
        "worker.finishing = True",
    ),
    Mutant(
        "tell one to finish in the same breath as to stop",
        TARGETS,
        "return math.inf if late else worker.since + NOTICE",
        "return math.inf if late else worker.since",
    ),
    Mutant(
        "forget whom the manager before told to finish",
        SNAPSHOT,
        "        finishing=was.finishing,\n",
        "        finishing=False,\n",
    ),
    Mutant(
        "say that those who are gone serve",
        FLEET,
        "ready=kept.ready if kept else 0,",
        "ready=kept.wanted if kept else 0,",
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
        "self.unquiet = dict.fromkeys(left, self._now)",
        "self.unquiet = {}",
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
        "if not to_feed or (to_feed == self.fed and self._now < self.feed_again):",
        "if not to_feed or to_feed == self.fed or (self.fed and not self.trial):",
    ),
    Mutant(
        "drain before quiet",
        TURNOVER,
        "if useless or not leases.keeps(worker.lease):",
        "if useless or worker.lease is not None:",
    ),
    Mutant(
        "back off the wrong generation",
        FLEET,
        "generation.back_off(self._now, steady=self._now",
        "(self.current or generation).back_off(self._now, steady=self._now",
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
        TURNOVER,
        "deadline = since + generation.spec.drain_timeout",
        "deadline = math.inf",
    ),
    Mutant(
        "kill once and then hope",
        TURNOVER,
        "worker.deadline = now + KILL_AGAIN",
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
        "forgive a hang on trial",
        FLEET,
        "if isinstance(fact, Hung) and trial and",
        "if isinstance(fact, Hung) and trial and trial.fault and",
    ),
    Mutant(
        "leave a worker that hangs where it is",
        FLEET,
        "worker.recycle = fact.why",
        "worker.recycle = getattr(fact, 'why', '') if isinstance(fact, Recycle) else ''",
    ),
    Mutant(
        "take any worker that hangs for one on trial",
        FLEET,
        "trial.number == worker.id.generation:",
        "trial.number >= worker.id.generation:",
    ),
    Mutant(
        "reuse a lease that holds connections",
        LEASES,
        "for w in self.targets.workers()} | {*self.unquiet}",
        "for w in self.targets.workers()}",
    ),
    Mutant(
        "let nobody inherit the queue of the dead",
        LEASES,
        "return bool(current.ready) if lease is None else self._served(lease)",
        "return bool(current.ready) if lease is None else True",
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
        LEASES,
        "for g in candidates if g.ready and targets.target(g)]",
        "for g in candidates if g.ready]",
    ),
    Mutant(
        "feed the unproven beside the current",
        LEASES,
        "rolling = [trial] if trial and targets.mixing and not (tried and trial.instant) else []",
        "rolling = [trial] if trial and not (tried and trial.instant) else []",
    ),
    Mutant(
        "a new budget of spawns in every round",
        FLEET,
        "self._budget -= len(spawns)",
        "self._budget -= 0",
    ),
    Mutant(
        "a budget of spawns for each generation",
        TURNOVER,
        "budget - len(commands)",
        "budget",
    ),
    Mutant(
        "start an exclusive one beside those that drain",
        TARGETS,
        "others = any(w.id.generation != generation.number for w in self.workers())",
        "others = any(w.id.generation != generation.number and w.active for w in self.workers())",
    ),
    Mutant(
        "forget connections that nobody takes",
        LEASES,
        "return generation is self.targets.current and bool(generation.ready) and not alone",
        "return False",
    ),
    Mutant(
        "forget connections that living workers do not take",
        LEASES,
        "return self.late_at(lease) if rescued or not self._rescuers else math.inf",
        "return self.late_at(lease)",
    ),
    Mutant(
        "wait for Quiet for ever",
        LEASES,
        "return lease in self.unquiet and self.targets.now < self.late_at(lease)",
        "return lease in self.unquiet",
    ),
    Mutant(
        "rescue for ever",
        LEASES,
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
        TURNOVER,
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
        "late = self.now < 0 and served",
    ),
    Mutant(
        "feed those that are to go from a queue of their own",
        TARGETS,
        "[w for w in ready if w.id not in going]",
        "[w for w in ready if not w.rescue]",
    ),
    Mutant(
        "feed a worker before it is ready",
        TARGETS,
        "if w.state is State.READY and not w.hung)",
        "if w.active and not w.hung)",
    ),
    Mutant(
        "spread over all what comes when nobody serves",
        LEASES,
        "weights = weights or {self._waiting(fallback): 1}",
        "weights = weights or dict(self.fed) or {self._waiting(fallback): 1}",
    ),
    Mutant(
        "let connections wait where nobody will come",
        LEASES,
        "        if self.fed:\n            return self.fed[0][0]\n",
        "",
    ),
    Mutant(
        "let the first connections wait in any queue",
        LEASES,
        "return next(itertools.chain(self._left(), self._free()))",
        "return next(self._free())",
    ),
    Mutant(
        "give a new queue to the successor of the dead",
        LEASES,
        "left = self._left() if self._inherits(generation) else []",
        "left: list[int] = []",
    ),
    Mutant(
        "give what waits to the unproven",
        LEASES,
        "if generation is not targets.trial or targets.mixing:",
        "if generation is not None:",
    ),
    Mutant(
        "let no new version answer what nobody else does",
        LEASES,
        "return not (targets.current and targets.current.ready)",
        "return False",
    ),
    Mutant(
        "take a queue from one who still drains",
        LEASES,
        "for w in self.targets.workers() if w.state is not State.KILLED)",
        "for w in self.targets.workers() if w.active)",
    ),
    Mutant(
        "wait until the killed are gone before their queue is taken over",
        LEASES,
        "for w in self.targets.workers() if w.state is not State.KILLED)",
        "for w in self.targets.workers())",
    ),
    Mutant(
        "feed a worker of its own queue though it hangs",
        TARGETS,
        "if w.state is State.READY and not w.hung)",
        "if w.state is State.READY)",
    ),
    Mutant(
        "leave what waits behind a worker that hangs",
        LEASES,
        "if w.active and not w.hung]",
        "if w.active]",
    ),
    Mutant(
        "forget over a succession who hangs",
        SNAPSHOT,
        "            hung=worker.hung,\n",
        "",
    ),
    Mutant(
        "forget who waits at a listener that is removed",
        FLEET,
        "if old.spec.removed(trial.spec):",
        "if trial.spec.removed(trial.spec):",
    ),
    Mutant(
        "feed who stops by itself",
        FLEET,
        "worker.become(State.DRAINING, self._now, self._now + drain_timeout)",
        "worker.recycle = 'it stops'",
    ),
    Mutant(
        "forgive who stops by itself on trial",
        FLEET,
        'self._lost(worker, "stopped by itself", None, done)',
        "pass",
    ),
    Mutant(
        "leave the queue of who stops by itself to nobody",
        LEASES,
        "held = {w.lease for w in alive if not w.leaving}",
        "held = {w.lease for w in alive}",
    ),
    Mutant(
        "forget over a succession who stops by itself",
        SNAPSHOT,
        "            leaving=worker.leaving,\n",
        "",
    ),
    Mutant(
        "take the queue that another generation shares",
        LEASES,
        "if not self.targets.exclusive:\n            held",
        "if self.targets.stopping:\n            held",
    ),
    Mutant(
        "leave what waits for an exclusive generation",
        LEASES,
        "if not self.targets.exclusive:\n            held",
        "if self.targets.now:\n            held",
    ),
    Mutant(
        "share no queue after generations that had one for each",
        LEASES,
        "if alone or current is None else self._left()",
        "if current is None else self._left()",
    ),
    Mutant(
        "number queues on and on",
        LEASES,
        "(n for n in itertools.count() if n not in taken)",
        "(n for n in itertools.count(len(taken) + 4) if n not in taken)",
    ),
    Mutant(
        "number two queues alike",
        LEASES,
        "| {*dict(self.fed)}\n",
        "\n",
    ),
    Mutant(
        "send a rescue and a successor to one queue",
        LEASES,
        "for lease in self._abandoned() if lease not in own]",
        "for lease in self._abandoned()]",
    ),
    Mutant(
        "take a rescue worker for one that is wanted",
        TURNOVER,
        "rescue=opening.rescue\n",
        "rescue=False\n",
    ),
    Mutant(
        "keep a rescue worker for ever",
        TARGETS,
        "if worker.active and worker.rescue:",
        "if worker.recycle and worker.rescue:",
    ),
    Mutant(
        "forget over a succession who is a rescue",
        SNAPSHOT,
        "        rescue=was.rescue,\n",
        "",
    ),
    Mutant(
        "pass a worker more than it may have",
        SCHEDULER,
        "if not worker.takes or worker.open >= self._max:",
        "if not worker.takes or worker.open > self._max:",
    ),
    Mutant("count the full as room", SCHEDULER, "found += self._max - worker.open", "found += 1"),
    Mutant(
        "give who was held at once what it has missed",
        SCHEDULER,
        "turn = worker.turn if worker.turn > self._now else self._now",
        "turn = worker.turn",
    ),
    Mutant(
        "let equals with few connections take no turns",
        SCHEDULER,
        "if load < best_load or (load == best_load and turn < best_turn):",
        "if load < best_load or (not self._least and turn < best_turn):",
    ),
    Mutant(
        "forget the weights of those with few connections",
        SCHEDULER,
        "load = worker.open / worker.weight if self._least else 0.0",
        "load = worker.open if self._least else 0.0",
    ),
    Mutant(
        "release who is not fed",
        SCHEDULER,
        "self.takes = self.weight > 0 and not self.held",
        "self.takes = not self.held",
    ),
    Mutant(
        "believe who took what nobody passed",
        LEDGER,
        "if report.taken > self.passed:",
        "if report.taken > self.passed + 1:",
    ),
    Mutant(
        "take any answer for that to the last question",
        LEDGER,
        "answers = report.answered == self.asked != 0",
        "answers = self.asked != 0",
    ),
    Mutant(
        "let nobody have room for what was lost",
        LEDGER,
        "return before.closed + before.lost - report.closed - report.lost",
        "return before.closed - report.closed",
    ),
    Mutant(
        "tell again what was lost before our time",
        LEDGER,
        "self.passed = report.taken\n",
        "self.passed, self.lost = report.taken, report.lost\n",
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
    of_dispatch = {named(name).module for name in arguments} & {SCHEDULER, LEDGER}
    if not of_dispatch and _transcripts_differ():
        print("transcripts")
        return 1
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    import pytest  # noqa: PLC0415 - most mutants need no more than the transcripts

    suite = OF_DISPATCH if of_dispatch else EXAMPLES if arguments else EXAMPLES + OF_DISPATCH
    for what in suite:
        if pytest.main(["-q", "-x", "--no-header", "-p", "no:cacheprovider", str(HERE / what)]):
            print(what)
            return 1
    print("green")
    return 0


def _transcripts_differ() -> bool:
    from tests.fleet.transcripts import files, replay  # noqa: PLC0415 - after the mutant is installed

    try:
        return any(replay(path.read_text()) != path.read_text() for path in files())
    except (AssertionError, LookupError, ValueError):
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
