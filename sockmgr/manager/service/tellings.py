"""The hooks that only hear what has happened: run in the order of that, a few at a time.

They change nothing and hold nobody up. Owns their processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from sockmgr.api.records import EventKind
from sockmgr.config.hooks import Hook, Moment
from sockmgr.config.spec import Spec
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import Aborted, Action, Committed, Refuse, Serving
from sockmgr.kernel.process import Process
from sockmgr.log import Log
from sockmgr.manager.logs.output import Output
from sockmgr.manager.workers.command import Command, Result, of_generation
from sockmgr.manager.workers.context import WorkerContext

log = Log("sockmgr")

AT_ONCE = 4
WAITING_MAX = 100  # a crash loop ends more workers than anybody wants to hear of


class Tellings:
    """Those of one service. `close` them with it."""

    def __init__(self, name: str, context: WorkerContext) -> None:
        self._name, self._context = name, context
        self._waiting: deque[Callable[[], None]] = deque()
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
        start = of_generation(spec, hook.argv, hook.executable, variables)
        self._waiting.append(partial(self._run, generation, hook, moment, start))
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
            self._waiting.popleft()()
        if self._dropped and not self._waiting:
            log.warning(EventKind.HOOKS_NOT_RUN, service=self._name, number=self._dropped,
                        why=f"{WAITING_MAX} waited already")  # fmt: skip
            self._dropped = 0

    def _run(
        self, generation: int, hook: Hook, moment: Moment, start: Callable[[Output], Process]
    ) -> None:
        name = f"{self._name}@{generation} {moment}"
        command = Command(name, self._context, lambda _: None)
        # Only now there is a command by which its end can be told.
        command.done = partial(self._ended, command, generation, moment)
        self._running.add(command)
        command.start(start, hook.timeout)

    def _ended(self, command: Command, generation: int, moment: Moment, result: Result) -> None:
        self._running.discard(command)
        # Nobody waits for it, so a warning is all that its failure can be.
        if result.fault:
            log.warning(EventKind.HOOK_FAILED, service=self._name, generation=generation,
                        hook=moment, why=result.fault)  # fmt: skip
        self._go_on()
