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
CANARY = "sockmgr.fleet.canary"
BOOK = "sockmgr.fleet.lease_book"
ROSTER = "sockmgr.fleet.roster"
SNAPSHOT = "sockmgr.fleet.snapshot"
HEALTH = "sockmgr.fleet.health"
RECYCLING = "sockmgr.fleet.recycling"
LIMITS = "sockmgr.fleet.limits"
RECORDS = "sockmgr.fleet.records"
HOOKS = "sockmgr.fleet.hooks"
RESTORING = "sockmgr.fleet.restoring"
GENERATION = "sockmgr.fleet.generation"
SCHEDULER = "sockmgr.programs.dispatcher.scheduler"
LEDGER = "sockmgr.programs.dispatcher.ledger"
HERE = Path(__file__).parent
EXAMPLES = (
    "test_fleet.py", "test_fleet_serving.py", "test_fleet_ends.py", "test_fleet_hooks.py",
    "test_own_leases.py", "test_recycling.py", "test_health.py",
    "test_canary.py", "test_fleet_properties.py",
)  # fmt: skip
PLUGINS = ("-p", "pytest_timeout", "-p", "no:cacheprovider")
OF_DISPATCH = tuple(
    f"../programs/dispatcher/{name}.py" for name in ("test_ledger", "test_scheduler")
)


@dataclass(frozen=True)
class Mutant:
    """Replace `old`, which occurs once in `module`, by `new`."""

    name: str
    module: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "give the old ones the share of the canary",
        LEASES,
        "weights |= {n: w * share * sum(old.values())",
        "weights |= {n: w * (100 - share) * sum(old.values())",
    ),
    Mutant(
        "count a canary as one who serves instead of the old ones",
        TARGETS,
        "return not (trial.instant or trial.canary)",
        "return not trial.instant",
    ),
    Mutant(
        "let the old ones make room for a canary",
        TARGETS,
        "if trial.canary and not self.exclusive:",
        "if trial.canary and self.exclusive:",
    ),
    Mutant(
        "have a condemned canary help out",
        TARGETS,
        "late = (self.now >= generation.deadline or generation.canary) and others",
        "late = self.now >= generation.deadline and others",
    ),
    Mutant(
        "go on though the check has not passed",
        CANARY,
        "elif now >= trial.deadline and canary.check and not trial.checked:",
        "elif now >= trial.deadline and canary.check and trial.step < 0:",
    ),
    Mutant(
        "believe the check of the step before",
        CANARY,
        "trial.checked |= trial.step == fact.step",
        "trial.checked = True",
    ),
    Mutant(
        "skip a step",
        CANARY,
        "        trial.step += 1\n",
        "        trial.step += 2\n",
    ),
    Mutant(
        "keep a newer reload waiting for a canary",
        CANARY,
        "elif newer:",
        "elif newer and trial.deadline < now:",
    ),
    Mutant(
        "decide about whatever is on trial",
        CANARY,
        "if trial is None or trial.number != fact.generation or trial.fault:",
        "if trial is None or trial.fault:",
    ),
    Mutant(
        "forget the step of a canary with its manager",
        RESTORING,
        "same(each, OF_GENERATION)",
        "same(each, (name for name in OF_GENERATION if name != 'step'))",
    ),
    Mutant(
        "give the check of a dead manager no more time",
        RESTORING,
        "generation.deadline = max(generation.deadline, now + canary.seconds)",
        "pass",
    ),
    Mutant(
        "try a canary beside nobody",
        CANARY,
        "return 0 if beside and own else steps",
        "return 0 if own else steps",
    ),
    Mutant(
        "run a hook beside one that was told to end",
        HOOKS,
        "    if fleet.hook:\n        return",
        "    if fleet.hook and not fleet.hook.ending:\n        return",
    ),
    Mutant(
        "believe a hook that was told to end",
        HOOKS,
        "if generation is None or run.ending:",
        "if generation is None:",
    ),
    Mutant(
        "stop what serves for one whose hook has not ended",
        TARGETS,
        "return not newest.owes(Moment.BEFORE)",
        "return True",
    ),
    Mutant(
        "cut over without asking the hook",
        GENERATION,
        "not (self.canary or self.owes_hook)",
        "not self.canary",
    ),
    Mutant(
        "let a hook run for ever",
        HOOKS,
        "return _too_long(run) if now >= run.deadline",
        "return _too_long(run) if now < 0",
    ),
    Mutant(
        "leave the hook of a rollout that has ended running",
        HOOKS,
        "generation in (fleet.trial, fleet.current)",
        "True",
    ),
    Mutant(
        "stop without waiting for the hook",
        FLEET,
        "not self.living and not self.hook:",
        "not self.living:",
    ),
    Mutant(
        "forget with the manager which hooks let a generation go on",
        RESTORING,
        "        passed=frozenset(each.passed),\n",
        "",
    ),
    Mutant(
        "forget with the manager that a hook runs",
        RESTORING,
        "    if was := service.hook:",
        "    if (was := service.hook) and now < 0:",
    ),
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
        "if self.stopping or any(kind.serves for kinds in met for kind in kinds):",
        "if self.stopping:",
    ),
    Mutant(
        "feed half a generation on trial again",
        LEASES,
        "trial.ready and (trial.full or self._is_fed(trial)):",
        "trial.ready:",
    ),
    Mutant(
        "never kill whom max_draining lets finish",
        GENERATION,
        "self.finishing, self.deadline = True, min(self.deadline, deadline)",
        "self.finishing = True",
    ),
    Mutant(
        "tell one to finish in the same breath as to stop",
        ROSTER,
        "self.told.set(worker, worker.since + NOTICE)",
        "self.told.set(worker, worker.since)",
    ),
    Mutant(
        "forget whom the manager before told to finish",
        RESTORING,
        "same(was, OF_WORKER)",
        "same(was, set(OF_WORKER) - {'finishing'})",
    ),
    Mutant(
        "say that those who are gone serve",
        FLEET,
        "(kept.number, kept.ready)",
        "(kept.number, kept.wanted)",
    ),
    Mutant(
        "commit without probation",
        GENERATION,
        "now >= self.deadline or not self.wanted",
        "now >= self.since or not self.wanted",
    ),
    Mutant(
        "forget who waited before",
        FLEET,
        "self._leave(left)",
        "self._leave(())",
    ),
    Mutant("abort never", FLEET, "if trial.fault:", "if trial.fault and self.stopping:"),
    Mutant(
        "let a rollout wait for ever",
        HOOKS,
        "if now < trial.deadline:",
        "if now < math.inf:",
    ),
    Mutant(
        "forget to feed back after an abort",
        FLEET,
        "(stay and not to_feed) or (to_feed == self.fed and self._now < self.feed_again)",
        "(stay and not to_feed) or to_feed == self.fed or (self.fed and not self.trial)",
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
        "self.pending = replace(fact, together=together)",
        "self.pending = self.pending or replace(fact, together=together)",
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
        "worker.put_off(now + KILL_AGAIN)",
        "worker.put_off(math.inf)",
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
        HEALTH,
        "if isinstance(fact, Hung) and trial and",
        "if isinstance(fact, Hung) and trial and trial.fault and",
    ),
    Mutant(
        "end who is well and recycled for who is unhealthy",
        HEALTH,
        "        if not ill.unhealthy or stays",
        "        if ill.unhealthy or stays",
    ),
    Mutant(
        "leave a worker that hangs where it is",
        HEALTH,
        "worker.be_replaced(fact.why, hung",
        "worker.be_replaced(fact.why if isinstance(fact, Recycle) else '', hung",
    ),
    Mutant(
        "take any worker that hangs for one on trial",
        HEALTH,
        "trial.number == worker.id.generation:",
        "trial.number >= worker.id.generation:",
    ),
    Mutant(
        "reuse a lease that holds connections",
        BOOK,
        "        if lease not in self.unquiet:\n            self.use(lease)\n",
        "",
    ),
    Mutant(
        "let nobody inherit the queue of the dead",
        LEASES,
        "return bool(current.ready) if lease is None else self._served(lease)",
        "return bool(current.ready) if lease is None else True",
    ),
    Mutant(
        "drain the ready before the starting",
        ROSTER,
        "return Place(starting, is_ill, 0.0, worker.id.slot, worker)",
        "return Place(False, is_ill, 0.0, worker.id.slot, worker)",
    ),
    Mutant(
        "recycle the next one before the one before has ended",
        RECYCLING,
        "whole = generation.full and len(generation.workers) == generation.wanted",
        "whole = generation.full",
    ),
    Mutant(
        "recycle one while another slot is not served",
        RECYCLING,
        "whole = generation.full and len(generation.workers) == generation.wanted",
        "whole = not generation.roster.replaced",
    ),
    Mutant(
        "recycle in a rollout",
        RECYCLING,
        "busy = fleet.stopping or fleet.trial or fleet.pending",
        "busy = fleet.stopping",
    ),
    Mutant(
        "recycle without a pause those that reach a limit at once",
        RECYCLING,
        "generation.recycle_from = fleet.now + pause",
        "generation.recycle_from = fleet.now",
    ),
    Mutant(
        "never end the row of those that reach a limit at once",
        RECYCLING,
        "generation.early + 1 if is_early else 0",
        "generation.early + 1",
    ),
    Mutant(
        "take an age below a minute for a loop",
        RECYCLING,
        "is_early = worn.limit is not Limit.AGE and worn.at",
        "is_early = worn.at",
    ),
    Mutant(
        "forget over a succession who has reached a limit",
        RESTORING,
        "same(was, OF_WORKER)",
        "same(was, set(OF_WORKER) - {'worn'})",
    ),
    Mutant(
        "forget over a succession how long recycling is put off",
        RESTORING,
        "recycle_from=-math.inf if each.recycle_from is None else each.recycle_from",
        "recycle_from=-math.inf",
    ),
    Mutant(
        "have all workers reach a limit at once",
        LIMITS,
        "limit * (1 - SPREAD * draw)",
        "limit",
    ),
    Mutant(
        "wake up for nobody when a pause is over",
        RECORDS,
        "self.lost_at, turn)",
        "self.lost_at)",
    ),
    Mutant(
        "recycle before the successor is ready",
        TARGETS,
        "return target, 0 if self.exclusive else max(0, target - ready)",
        "return target, 0",
    ),
    Mutant(
        "feed those that are to go",
        LEASES,
        "if g.ready and targets.target(g) and g.may_be_met]",
        "if g.ready and g.may_be_met]",
    ),
    Mutant(
        "feed the unproven beside the current",
        LEASES,
        "rolls = trial and targets.mixing and not (tried and trial.instant)",
        "rolls = trial and not (tried and trial.instant)",
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
        "others = any(each.by_slot for each in self.rosters if each is not generation.roster)",
        "others = any(each.members for each in self.rosters if each is not generation.roster)",
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
        "return late if rescued or not self._rescued(lease) else math.inf",
        "return late",
    ),
    Mutant(
        "wait for Quiet for ever",
        LEASES,
        "return lease not in self.book.overdue",
        "return True",
    ),
    Mutant(
        "rescue for ever",
        LEASES,
        "return late if rescued or not self._rescued(lease) else math.inf",
        "return late if not self._rescued(lease) else math.inf",
    ),
    Mutant(
        "send no rescue the time it needs",
        FLEET,
        "self._leave([worker.lease])  # only",
        "pass  # only",
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
        "+ surge - current.headcount",
        "+ surge + 1 - current.headcount",
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
        "late = (self.now >= generation.deadline or generation.canary) and others",
        "late = generation.canary and others",
    ),
    Mutant(
        "feed those that are to go from a queue of their own",
        TARGETS,
        "able = roster.members[: min(members, useful(roster.members))]",
        "able = roster.members[: useful(roster.members)]",
    ),
    Mutant(
        "feed a worker before it is ready",
        TARGETS,
        "able = roster.members[: min(members, useful(roster.members))]",
        "able = roster.members[:members]",
    ),
    Mutant(
        "spread over all what comes when nobody serves",
        LEASES,
        "shares = [fallback], ((self._waiting(fallback), 1),)",
        "shares = [fallback], self.book.fed or ((self._waiting(fallback), 1),)",
    ),
    Mutant(
        "let connections wait where nobody will come",
        LEASES,
        "itertools.chain(self.book.weights, generation.leases, self._left())",
        "itertools.chain(generation.leases, self._left())",
    ),
    Mutant(
        "let the first connections wait in any queue",
        LEASES,
        "return next(itertools.chain(mine, self._free(generation.spec)))",
        "return next(self._free(generation.spec))",
    ),
    Mutant(
        "give a new queue to the successor of the dead",
        LEASES,
        "        inherits = self._inherits(generation)\n",
        "        inherits = False\n",
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
        BOOK,
        "return self.state is not State.KILLED and not self.leaving",
        "return self.active",
    ),
    Mutant(
        "wait until the killed are gone before their queue is taken over",
        BOOK,
        "return self.state is not State.KILLED and not self.leaving",
        "return not self.leaving",
    ),
    Mutant(
        "feed a worker of its own queue though it hangs",
        ROSTER,
        "return Place(starting or worker.hung, is_ill, -worker.since,",
        "return Place(starting, is_ill, -worker.since,",
    ),
    Mutant(
        "leave what waits behind a worker that hangs",
        BOOK,
        "not any(k.active and not k.hung for k in kinds)",
        "not any(k.active for k in kinds)",
    ),
    Mutant(
        "forget over a succession who hangs",
        SNAPSHOT,
        "same(worker, OF_WORKER)",
        "same(worker, set(OF_WORKER) - {'hung'})",
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
        BOOK,
        "return self.state is not State.KILLED and not self.leaving",
        "return self.state is not State.KILLED",
    ),
    Mutant(
        "forget over a succession who stops by itself",
        SNAPSHOT,
        "same(worker, OF_WORKER)",
        "same(worker, set(OF_WORKER) - {'leaving'})",
    ),
    Mutant(
        "take the queue that another generation shares",
        LEASES,
        "if not self.targets.exclusive:\n            left",
        "if self.targets.stopping:\n            left",
    ),
    Mutant(
        "leave what waits for an exclusive generation",
        LEASES,
        "if not self.targets.exclusive:\n            left",
        "if self.targets.now:\n            left",
    ),
    Mutant(
        "share no queue after generations that had one for each",
        LEASES,
        "if alone or current is None else self._left()",
        "if current is None else self._left()",
    ),
    Mutant(
        "number queues on and on",
        BOOK,
        "return itertools.chain(self._gaps, itertools.count(self._beyond))",
        "return itertools.count(self._beyond)",
    ),
    Mutant(
        "number two queues alike",
        BOOK,
        "            self.use(lease)\n            self._look(lease)\n",
        "            self._look(lease)\n",
    ),
    Mutant(
        "send a rescue and a successor to one queue",
        LEASES,
        "rescues = [lease for lease in left if lease not in own]",
        "rescues = left",
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
        "*_in_order(roster.rescues.values())]",
        "*_in_order(w for w in roster.rescues.values() if w.recycle)]",
    ),
    Mutant(
        "forget over a succession who is a rescue",
        RESTORING,
        "same(was, OF_WORKER)",
        "same(was, set(OF_WORKER) - {'rescue'})",
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


def install(mutant: Mutant) -> None:
    """Put it in the place of the real module, for all who import that in this process."""
    text = mutated(mutant)
    assert mutant.module not in sys.modules, "too late: the real module is imported already"
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__mutant__"] = mutant.name
    sys.modules[mutant.module] = module
    exec(compile(text, f"<mutant {mutant.name}>", "exec"), module.__dict__)


def main(arguments: list[str]) -> int:
    """Try one mutant; print what noticed it, or `green`."""
    for name in arguments:
        install(named(name))
        os.environ["SOCKMGR_MUTANT"] = name
    of_dispatch = {named(name).module for name in arguments} & {SCHEDULER, LEDGER}
    if not of_dispatch and _transcripts_differ():
        print("transcripts")
        return 1
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest  # noqa: PLC0415 - most mutants need no more than the transcripts

    suite = OF_DISPATCH if of_dispatch else EXAMPLES if arguments else EXAMPLES + OF_DISPATCH
    for what in suite:
        # Nobody reads how a mutant fails, so its asserts are not rewritten to say it well.
        bare = ["-qx", "--no-header", "--assert=plain", "--tb=no"]
        if pytest.main([*bare, *PLUGINS, str(HERE / what)]):
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
