"""The hook that the rollout of one service waits for: started, adopted, ended.

Owns its process. Decides nothing: which hook runs, and until when, the fleet says. A manager that
is killed leaves it running, with its pipe and its pidfd in the store. The next manager waits for
its end and never starts it anew, so a migration does not run twice at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from sockmgr.api.records import EventKind
from sockmgr.config.hooks import Moment
from sockmgr.errors import SpawnError
from sockmgr.fleet.history import History
from sockmgr.fleet.messages import EndHook, Fact, HookDone, RunHook
from sockmgr.fleet.snapshot import HookSnapshot, ProcessSnapshot
from sockmgr.kernel.process import Process, open_pidfd, pid_of
from sockmgr.log import Log
from sockmgr.manager.logs.output import LastWords, Output
from sockmgr.manager.workers.command import Command, Result, of_generation
from sockmgr.manager.workers.context import WorkerContext
from sockmgr.manager.workers.survivor import OUTPUT, PIDFD

log = Log("sockmgr")

NEWS_PACE = 3.0  # seconds between two reports that it still runs


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run of a hook; `start` starts it, and is None once that was tried."""

    generation: int
    moment: Moment
    name: str
    command: Command
    since: float
    start: Callable[[Output], Process] | None = None


class Hooks:
    """Of one service. `put` takes what a hook came to.

    `report` tells those who wait for a generation the news of its hook; `history` has how it came.
    """

    def __init__(
        self,
        name: str,
        context: WorkerContext,
        put: Callable[[Fact], None],
        report: Callable[[int, str, str], None],
        history: Callable[[], History],
    ) -> None:
        self._name, self._context, self._put, self._report = name, context, put, report
        self._history = history
        self._run: _Run | None = None
        self._words: dict[int, LastWords] = {}  # by generation, until its verdict
        self._news: asyncio.TimerHandle | None = None

    # --- Its life --------------------------------------------------------------------------------

    def perform(self, order: RunHook | EndHook) -> None:
        """Make what the next manager needs to know of a hook, which begin() starts; or kill it."""
        if isinstance(order, EndHook):
            self._end(order)
            return
        run = self._run = self._made(order.generation, order.moment)
        run.start = _start(self._name, order, self._history().origin(order.generation).to)
        with contextlib.suppress(SpawnError):  # begin() tries again, and tells why it cannot
            run.command.prepare()

    def begin(self) -> bool:
        """Start the hook that was prepared; tell whether there was one."""
        run = self._run
        if run is None or run.start is None:
            return False
        # Not before the state names it: else the next manager would run it once more.
        start, run.start = run.start, None
        log.info(EventKind.HOOK_STARTED, service=self._name, generation=run.generation,
                 hook=run.moment)  # fmt: skip
        run.command.start(start)
        self._tell_news()
        return True

    def adopt(self, was: HookSnapshot, left: dict[str, list[int]]) -> None:
        """Go on with the hook of another manager, whose descriptors are in what it `left`."""
        name = _stored(self._name, was.generation, was.moment)
        fds = {role: fd for role in (PIDFD, OUTPUT) for fd in left.pop(f"{name}/{role}", [])}
        for fd in fds.values():
            os.set_inheritable(fd, False)  # what came by execve(2) is inheritable
        run = self._run = self._made(was.generation, was.moment, since=was.since)
        run.command.adopt(_process(was, fds.get(PIDFD)), fds.get(OUTPUT, -1))
        log.info(EventKind.HOOK_ADOPTED, service=self._name, generation=was.generation,
                 hook=was.moment)  # fmt: skip
        self._tell_news()

    def close(self) -> None:
        """Tell nobody of it any more."""
        if self._news:
            self._news.cancel()
            self._news = None

    # --- What there is ---------------------------------------------------------------------------

    @property
    def descriptors(self) -> dict[str, int]:
        """What the next manager needs of it, by name; borrowed."""
        if self._run is None:
            return {}
        command = self._run.command
        found = {
            PIDFD: command.process.pidfd if command.process else -1,
            OUTPUT: command.output.fileno() if command.output else -1,
        }
        name = _stored(self._name, self._run.generation, self._run.moment)
        return {f"{name}/{role}": fd for role, fd in found.items() if fd >= 0}

    @property
    def written(self) -> ProcessSnapshot | None:
        """Its process, as the next manager knows it again."""
        process = self._run.command.process if self._run else None
        return ProcessSnapshot(pid=process.pid, started=process.started) if process else None

    def words_of(self, generation: int) -> LastWords:
        """Return what the hook of this generation printed last, if it failed or still runs."""
        run = self._run
        # One that took too long still runs as its verdict is given, and KILL is on the way.
        if run and run.generation == generation and run.command.output:
            words = run.command.output.last_words("")
            return LastWords(lines=words.lines, said_by=run.name)
        return self._words.pop(generation, LastWords())

    def pass_on_output(self) -> None:
        """Log what was read of its output, for the next manager reads only what comes after it."""
        if self._run and self._run.command.output:
            self._run.command.output.leave()

    # --- Private ---------------------------------------------------------------------------------

    def _end(self, order: EndHook) -> None:
        if self._run:
            log.warning(EventKind.HOOK_KILLED, service=self._name, generation=order.generation,
                        hook=order.moment, why=order.why)  # fmt: skip
            self._run.command.kill(order.why)

    def _made(self, generation: int, moment: Moment, since: float | None = None) -> _Run:
        name = f"{self._name}@{generation} {moment}"
        command = Command(name, self._context, self._ended)
        now = self._context.loop.time() if since is None else since
        return _Run(generation=generation, moment=moment, name=name, command=command, since=now)

    def _ended(self, result: Result) -> None:
        # The fleet may order the next one as soon as it hears of this end.
        run, self._run = self._run, None
        self.close()
        if run is None:
            return
        took = self._context.loop.time() - run.since
        if result.fault:
            log.error(EventKind.HOOK_FAILED, service=self._name, generation=run.generation,
                      hook=run.moment, took=took, why=result.fault)  # fmt: skip
            self._words = {run.generation: LastWords(lines=result.lines, said_by=run.name)}
        else:
            log.info(EventKind.HOOK_ENDED, service=self._name, generation=run.generation,
                     hook=run.moment, took=took)  # fmt: skip
        self._put(HookDone(generation=run.generation, moment=run.moment, fault=result.fault))

    def _tell_news(self) -> None:
        if run := self._run:
            ran = self._context.loop.time() - run.since
            news = f"running hook {run.moment}" + (f" ({ran:.0f} s)" if ran >= 1 else "")
            self._report(run.generation, run.moment, news)
            self._news = self._context.loop.call_later(NEWS_PACE, self._tell_news)


def _start(service: str, order: RunHook, rollback: int) -> Callable[[Output], Process]:
    hook = order.spec.hooks.at(order.moment)
    assert hook is not None  # noqa: S101 - a fleet runs only hooks that there are
    variables = {"SOCKMGR_SERVICE": service, "SOCKMGR_GENERATION": str(order.generation)}
    if rollback:
        variables["SOCKMGR_ROLLBACK"] = str(rollback)
    return of_generation(order.spec, hook.argv, hook.executable, variables)


def _stored(service: str, generation: int, moment: Moment) -> str:
    """Return what its descriptors are stored under; no worker has such a name."""
    return f"{service}@{generation}.{moment}"


def _process(was: HookSnapshot, pidfd: int | None) -> Process | None:
    if pidfd is not None:
        # Without a record the state was written before the start; the pid is 0 if it was reaped.
        return Process(was.process.pid if was.process else pid_of(pidfd), pidfd=pidfd)
    if was.process and (fd := open_pidfd(was.process.pid, was.process.started)) is not None:
        return Process(was.process.pid, pidfd=fd)
    return None
