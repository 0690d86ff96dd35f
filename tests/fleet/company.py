"""Several fleets of one manager, as services.py has them: facts in queues, decisions between them.

Processes do what a test says, a manager may die between any two facts, and no group may ever be
split: that is looked at after each fact.
"""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from sockmgr.config.config import Config
from sockmgr.config.spec import Spec
from sockmgr.fleet import order
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.group import Together
from sockmgr.fleet.messages import (
    Aborted,
    Committed,
    Drain,
    Fact,
    Kill,
    Outcome,
    Released,
    Reload,
    Start,
    State,
    Tick,
    WorkerExited,
    WorkerId,
    WorkerReady,
)
from sockmgr.fleet.restoring import restore
from sockmgr.fleet.snapshot import Snapshot, decode
from sockmgr.fleet.together import Groups, resolved
from tests.helpers.states import encode, record


class Company:
    """Fleets by name, and what they told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.fleets: dict[str, Fleet] = {}
        self.facts: dict[str, deque[Fact]] = {}
        self.groups = Groups()
        self.told: dict[str, list[Outcome]] = {}
        self.joint: dict[int, dict[str, str]] = {}  # group -> service -> how its rollout ended
        self.requests = 0

    # --- What happens ----------------------------------------------------------------------------

    def start(self, **specs: Spec) -> None:
        for name, spec in specs.items():
            self.add(name)
            self.put(name, Start(spec=spec, patience=order.patience(name, specs)))
        self.settle()

    def add(self, name: str) -> None:
        self.fleets[name], self.facts[name] = Fleet(), deque()
        self.told.setdefault(name, [])

    def reload(self, *, together: bool = True, **specs: Spec) -> None:
        group = Together(group=self.groups.number(self.fleets)) if together else None
        asked = [
            each for facts in self.facts.values() for each in facts if isinstance(each, Reload)
        ]
        asked += [fleet.pending for fleet in self.fleets.values() if fleet.pending]
        waits = any(each.together == group for each in asked)
        if group and not waits:
            self.joint.pop(group.group, None)  # a number is had again when nobody has it any more
        for name, spec in specs.items():
            if name not in self.fleets:
                self.add(name)
            known = {n: f.serving.spec for n, f in self.fleets.items() if f.serving} | specs
            self.requests += 1
            wait = 0.0 if self.fleets[name].current else order.patience(name, known)
            self.put(name, Reload(spec=spec, request=self.requests, together=group, patience=wait))

    def put(self, name: str, fact: Fact) -> None:
        self.facts[name].append(fact)

    def ready(self, name: str) -> None:
        """Have each worker that starts be ready."""
        self._each(name, lambda id: WorkerReady(worker=id), State.STARTING)

    def exit(self, name: str, generation: int, status: int = 1) -> None:
        """Have each worker of a generation end."""
        for worker in list(self.fleets[name].generations[generation].workers.values()):
            self.put(name, WorkerExited(worker=worker.id, status=status))

    def _each(self, name: str, fact: Any, *states: State) -> None:
        for worker in list(self.fleets[name].workers()):
            if worker.state in states:
                self.put(name, fact(worker.id))

    def sleep(self, seconds: float) -> None:
        """Let time pass, with a tick at each deadline on the way."""
        until = self.now + seconds
        self.settle()
        while (next := min(each.deadline for each in self.fleets.values())) <= until:
            self.now = max(self.now, next)
            for name, fleet in self.fleets.items():
                if fleet.deadline <= self.now:
                    self.put(name, Tick())
            self.settle()
        self.now = until

    def die(self) -> None:
        """Let the manager die with what it had not taken, and another go on from what it wrote."""
        written = encode(
            Snapshot(
                boot_id="", config=Config(name="", listen=(), services=()), listeners=(),
                services=tuple(record(n, f, {}) for n, f in self.fleets.items()),
            )
        )  # fmt: skip
        lost = [
            fact for facts in self.facts.values() for fact in facts
            if isinstance(fact, WorkerReady | WorkerExited)
        ]  # fmt: skip
        for service in resolved(decode(written).services):
            facts = self.facts[service.name]
            # The world did not end with the manager: who died is dead, and is looked at again.
            kept = [fact for fact in facts if fact in lost]
            self.fleets[service.name] = restore(service, self.now)
            self.facts[service.name] = deque([Tick(), *kept])
        self.groups = Groups()

    # --- What the shell does ---------------------------------------------------------------------

    def settle(self) -> None:
        """Take facts, one of each service in turn, until none is left."""
        while self.step():
            pass

    def step(self, name: str = "") -> bool:
        """Take one fact (of this service, or of the first that has one); False if there is none."""
        name = name or next((n for n, facts in self.facts.items() if facts), "")
        if not name or not self.facts[name]:
            return False
        fleet, fact = self.fleets[name], self.facts[name].popleft()
        before = fleet.trial
        for action in fleet.handle(fact, self.now):
            if isinstance(action, Outcome):
                self.told[name].append(action)
            match action:
                case Committed() | Aborted():
                    trial = fleet.current if isinstance(action, Committed) else before
                    if trial and trial.together and trial.number == action.generation:
                        self._note(trial.together.group, name, type(action).__name__)
                case Drain() | Kill():
                    self.put(name, WorkerExited(worker=action.worker, status=0))
                case _:
                    pass
        if not any(self.facts.values()):
            for other, decision in self.groups.decide(self.fleets):
                self.put(other, decision)
            for other in order.released(self.fleets):
                self.put(other, Released())
        return True

    def _note(self, group: int, name: str, how: str) -> None:
        ends = self.joint.setdefault(group, {})
        ends[name] = how
        assert len(set(ends.values())) == 1, f"group {group} is split: {ends}"

    # --- What there is ---------------------------------------------------------------------------

    def verdicts(self, name: str) -> list[Committed | Aborted]:
        return [each for each in self.told[name] if isinstance(each, Committed | Aborted)]

    def phases(self) -> dict[str, str]:
        """The phase of what is on trial."""
        return {n: f.trial.phase.value for n, f in self.fleets.items() if f.trial}

    def workers(self, name: str) -> list[WorkerId]:
        return [worker.id for worker in self.fleets[name].workers()]


def number(company: Company, name: str) -> int:
    """The generation that serves."""
    return cast("Any", company.fleets[name].current).number
