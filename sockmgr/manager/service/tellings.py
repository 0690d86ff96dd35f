"""The hooks that only hear what has happened: run in the order of that, a few at a time.

They change nothing and hold nobody up. Owns their processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from sockmgr.api.records import EventKind
from sockmgr.config.hooks import Hook, Moment
from sockmgr.config.spec import Spec
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import Aborted, Action, Committed, Refuse, Serving
from sockmgr.log import Log
from sockmgr.manager.workers.command import Command, Result, of_generation
from sockmgr.manager.workers.context import WorkerContext

log = Log("sockmgr")

AT_ONCE = 4
WAITING_MAX = 100  # a crash loop ends more workers than anybody wants to hear of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Telling:
    generation: int
    moment: Moment
    hook: Hook
    spec: Spec
    variables: dict[str, str]


class Tellings:
    """Those of one service. `close` them with it."""

    def __init__(self, name: str, context: WorkerContext) -> None:
        self._name, self._context = name, context
        self._waiting: deque[_Telling] = deque()
        self._running: set[Command] = set()
        self._dropped = 0
        self._is_closed = False

    def tell(self, spec: Spec, generation: int, moment: Moment, **about: object) -> None:
        """Run the hook of this moment, if there is one, when its turn comes.

        `about` are more variables: `reason` is SOCKMGR_REASON.
        """
        hook = spec.hooks.at(moment)
        if hook is None or self._is_closed:
            return
        if len(self._waiting) >= WAITING_MAX:
            self._dropped += 1
            return
        known = {"service": self._name, "generation": generation, **about}
        variables = {f"SOCKMGR_{name.upper()}": str(value) for name, value in known.items()}
        self._waiting.append(
            _Telling(
                generation=generation, moment=moment, hook=hook, spec=spec, variables=variables
            )
        )
        self._go_on()

    def hear(self, actions: Iterable[Action], trial: Generation | None, fleet: Fleet) -> None:
        """Tell what a rollout came to; `trial` was on trial before these actions."""
        for action in actions:
            match action:
                # All is to stop: what would begin now would be killed before it has done its work.
                case Refuse():
                    self._rest()
                case Committed() | Serving() if fleet.current:
                    number, spec = action.generation, fleet.current.spec
                    self.tell(spec, number, Moment.COMMITTED, verdict="committed")
                case Aborted() if trial and trial.number == action.generation:
                    why = action.reason
                    self.tell(
                        trial.spec, trial.number, Moment.ABORTED, verdict="aborted", reason=why
                    )

    def _rest(self) -> None:
        self._is_closed = True
        self._waiting.clear()

    def close(self) -> None:
        """Kill those that run: the end waits for nobody who only hears."""
        self._rest()
        for command in self._running:
            command.close()
        self._running.clear()

    def _go_on(self) -> None:
        # A machine that restarts workers all the time has no time for a process for each end.
        while self._waiting and len(self._running) < AT_ONCE:
            self._run(self._waiting.popleft())
        if self._dropped and not self._waiting:
            log.warning(EventKind.HOOKS_NOT_RUN, service=self._name, number=self._dropped,
                        why=f"{WAITING_MAX} waited already")  # fmt: skip
            self._dropped = 0

    def _run(self, one: _Telling) -> None:
        context, name = self._context, f"{self._name}@{one.generation} {one.moment}"
        command = Command(name, context.sink, context.loop, context.family, lambda _: None)
        # Only now there is a command by which its end can be told.
        command.done = partial(self._ended, command, one)
        self._running.add(command)
        start = of_generation(one.spec, one.hook.argv, one.hook.executable, one.variables)
        command.start(start, one.hook.timeout)

    def _ended(self, command: Command, one: _Telling, result: Result) -> None:
        self._running.discard(command)
        # Nobody waits for it, so a warning is all that its failure can be.
        if result.fault:
            log.warning(EventKind.HOOK_FAILED, service=self._name, generation=one.generation,
                        hook=one.moment, why=result.fault)  # fmt: skip
        self._go_on()
