"""One `sockmgr dev`: watches files, asks the manager for reloads, and shows the results.

Runs in the manager's loop. pace.py decides when to look at files and when to reload; the fleet of a
service decides what becomes of a generation.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Collection, Coroutine, Sequence

from msgspec.structs import replace

from sockmgr.api.types import Progress, Verdict
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.dev import bytecode, defaults
from sockmgr.dev.banner import KEYS
from sockmgr.dev.failure import Failure, read
from sockmgr.dev.known import Known, has_failed, is_alone, serving
from sockmgr.dev.lifeline import Lifeline
from sockmgr.dev.livereload import VARIABLE, LiveReload
from sockmgr.dev.narrator import Narrator
from sockmgr.dev.pace import GiveUp, Look, Pace, Reload
from sockmgr.dev.project import Project
from sockmgr.dev.rules import Rules
from sockmgr.dev.screen import DIM, Screen
from sockmgr.dev.watch import Watcher
from sockmgr.errors import SockmgrError
from sockmgr.fleet.messages import Phase
from sockmgr.launch.call import recognise
from sockmgr.manager.embedding import Host
from sockmgr.manager.service.verdicts import ignore_progress
from sockmgr.manager.status import measured
from sockmgr.terminal.keys import Keys

EXTRA_FILES_MAX = 500  # how many files that tracebacks name may be watched in addition


class Session:
    """The companion of one manager (manager/embedding.py). Borrows all that it is given."""

    def __init__(
        self,
        read_config: Callable[[], Config],
        project: Project,
        screen: Screen,
        lifeline: Lifeline,
        livereload: LiveReload,
        *,
        typed: Collection[str] = (),
        terminal: int | None = None,
    ) -> None:
        self.sink = screen
        self._read, self._project, self._screen = read_config, project, screen
        self._mark, self._typed, self._terminal = lifeline.mark, typed, terminal
        self._known: dict[str, Known] = {}
        self._standing_in: set[str] = set()
        self._livereload = livereload
        self._starting = True  # until every service serves or has failed for the first time
        self._gave_up = False
        self._began_at = time.time()
        self._named: set[str] = set()  # files that a failure named, to be watched as well
        self._host: Host
        self._tasks: asyncio.TaskGroup | None = None
        screen.failed = self._on_failure

    # --- The manager's source of its config ---------------------------------------------------

    def source(self) -> Config:
        """Read the config, and return what it means in development."""
        with contextlib.suppress(OSError):  # reading the config says what is missing
            os.chdir(self._project.cwd)  # the directory may have been deleted and made again
        self._config = self._read()
        env = dict([self._mark])
        if self._config.dev.livereload:
            env[VARIABLE] = self._livereload.listen()
        else:
            self._livereload.close()
        config = defaults.for_development(self._config, typed=self._typed, env=env)
        services = (
            self._stand_in(service) if service.name in self._standing_in else service
            for service in config.services
        )
        return replace(config, services=tuple(services))

    def _stand_in(self, service: ServiceConfig) -> ServiceConfig:
        everyone = self._config.dev.error_page is True
        command = self._narrator.pages.command(service.name, to_everyone=everyone)
        return defaults.stand_in(service, command, dict([self._mark]))

    # --- The companion ------------------------------------------------------------------------

    async def run(self, manager: Host) -> None:
        self._host, self._loop = manager, asyncio.get_running_loop()
        self._woken, self._busy = asyncio.Event(), asyncio.Lock()
        self._pace = Pace(self._loop.time())
        self._narrator = Narrator(self._screen, lambda: self._watcher.rules)
        self._watched_config = self._config
        self._watcher = self._new_watcher(self._project.rules(self._watched_config))
        keys = None
        self._take_signals()
        self._livereload.attach(self._loop)
        try:
            if self._terminal is not None:
                keys = Keys(self._terminal, self._on_key, self._hang_up)
                keys.open()
            async with asyncio.TaskGroup() as self._tasks:
                self.changed()
                looked = await self._watcher.open(self._began_at)
                self._pace.found(looked.changed, self._loop.time(), in_start=True)
                await self._attend()
        finally:
            if keys:
                keys.close()
            self._watcher.close()
            self._narrator.close()
            self._livereload.close()

    def changed(self) -> None:
        """Note how each service fares. The manager calls this after every change."""
        if self._tasks is None:
            return
        for name, service in self._host.services.items():
            known = self._known.setdefault(name, Known())
            number = serving(service)
            if number:
                self._livereload.serves(name, number, alone=is_alone(service, number))
            if number and not known.good:
                known.good = True
                if not service.fleet.trial:
                    known.number = number
                    self._show_serving(name, number, time.time() - self._began_at)
            elif not (known.good or known.down) and has_failed(service):
                known.down = True
                self._task(self._on_first_failure(name), f"{name} is down")
        if self._starting and all(known.good or known.down for known in self._known.values()):
            self._end_start()

    # --- Saves and reloads --------------------------------------------------------------------

    async def _attend(self) -> None:
        while True:
            await self._watch_what_counts()
            match self._pace.next(self._loop.time()):
                case Look():
                    looked = await self._watcher.look()
                    self._pace.looked(looked.changed, looked.rewritten, self._loop.time())
                case Reload(paths):
                    if self._pace.chasing:
                        self._narrator.chasing(paths)
                    self._task(self._reload(paths), "reload")
                case GiveUp():
                    self._give_up()
                case None:
                    await self._wait()

    async def _watch_what_counts(self) -> None:
        """Watch the files of the config that was read last, and those that a failure named."""
        if self._watched_config is not self._config:
            self._watched_config, rules = self._config, self._project.rules(self._config)
        else:
            rules = self._watcher.rules
        polling = self._config.dev.force_polling
        if not self._watcher.rules.covers(rules) or self._watcher.polling is not polling:
            old, self._watcher = self._watcher, self._new_watcher(rules)
            looked = await self._watcher.open(self._began_at)
            old.close()
            self._pace.found(looked.changed, self._loop.time(), in_start=True)
        files, self._named = self._named - self._watcher.rules.files, set()
        if files and len(self._watcher.rules.files) < EXTRA_FILES_MAX:
            looked = await self._watcher.also(files, self._began_at)
            self._pace.found(looked.changed, self._loop.time(), in_start=True)

    async def _wait(self) -> None:
        deadline = self._pace.deadline
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    async def _reload(self, paths: Sequence[str]) -> None:
        verdicts: list[Verdict] = []
        async with self._busy:
            self._began_at = time.time()
            bytecode.forget(paths, os.environ.get("PYTHONPYCACHEPREFIX", ""))
            try:
                verdicts = await self._host.reload((), self._on_progress)
            except SockmgrError as error:
                self._complain(error)
        gave_up, self._gave_up = self._gave_up, False
        failures = {name: known.failure for name, known in self._known.items()}
        self._ended()
        for verdict in verdicts:
            await self._report(verdict, paths, failures.get(verdict.service), gave_up=gave_up)

    def _ended(self) -> None:
        self._pace.ended(self._loop.time())
        self._woken.set()

    def _give_up(self) -> None:
        """Abort the start that is under way, because newer code waits."""
        if self._starting:
            self._end_start()
        else:
            self._gave_up = True
            self._host.give_up()

    def _end_start(self) -> None:
        self._starting = False
        self._ended()

    async def _on_first_failure(self, name: str) -> None:
        """Show why the first code of a service failed, and answer requests with that."""
        await self._show(name)
        await self._answer_with_failure(name)
        self._show_keys()

    async def _answer_with_failure(self, name: str) -> None:
        service = next((s for s in self._config.services if s.name == name), None)
        # Of a worker that could not be started at all there is nothing that a page could show.
        has_page = self._known[name].failure is not None
        if service is None or not has_page or not self._shows_errors(service):
            waits = "requests wait" if service and service.listen else "it does not run"
            self._narrator.once(f"{name}: {waits} until its code is mended")
            return
        async with self._busy:
            if self._known[name].good:
                return
            self._standing_in.add(name)
            try:
                await self._host.reload((name,), ignore_progress)
            except SockmgrError as error:
                self._complain(error)
            finally:
                self._standing_in.discard(name)
        self._narrator.once(f"{name}: requests are answered with this error until it is mended")

    def _shows_errors(self, service: ServiceConfig) -> bool:
        call = recognise(service.command)
        wanted = self._config.dev.error_page
        preset = call.name if call else ""
        return defaults.shows_errors(service, self._config.listens(), wanted, preset)

    # --- What the developer sees --------------------------------------------------------------

    def _on_failure(self, worker: str, output: list[str], what: str) -> None:
        """Remember why a worker did not get ready; the screen calls this."""
        name, _, place = worker.partition("@")
        known = self._known.setdefault(name, Known())
        known.failure = read(output, what)
        known.failed = int(place.partition(".")[0])
        if known.down and not self._busy.locked():
            self._task(self._show(name), f"{name} failed again")

    async def _show(self, name: str) -> None:
        if failure := self._known[name].failure:
            self._named.update(failure.files)
            self._woken.set()
            await self._narrator.show(name, failure)

    async def _report(
        self, verdict: Verdict, paths: Sequence[str], failure: Failure | None, *, gave_up: bool
    ) -> None:
        known = self._known.setdefault(verdict.service, Known())
        if verdict.verdict == "committed":
            before, known.number = known.number, verdict.generation
            seconds = known.took.pop(verdict.generation, verdict.seconds)
            if before:
                self._narrator.reloaded(verdict, before, seconds, paths)
                self._show_keys()
            else:
                self._show_serving(verdict.service, verdict.generation, seconds, paths)
        elif self._host.stopping:
            pass  # the stop is the reason, and the developer asked for it
        elif gave_up:
            what = f"{verdict.service} {verdict.generation}: given up for newer code"
            self._screen.say(what, DIM)
        else:
            if failure and known.failed == verdict.generation:
                await self._show(verdict.service)
            else:
                self._screen.say(verdict.reason, DIM)
            serves = f"{known.number} keeps serving" if verdict.kept_ready else "nothing serves"
            kept = serves if known.good else "nothing serves yet"
            self._narrator.failed(verdict, kept, paths)

    def _show_serving(
        self, name: str, number: int, seconds: float, paths: Sequence[str] = ()
    ) -> None:
        status = self._host.status()
        listen = next((s.listen for s in self._config.services if s.name == name), ())
        addresses = [status.listeners[one].address for one in listen if one in status.listeners]
        self._narrator.serving(name, number, addresses, seconds, paths)
        self._show_keys()

    def _show_keys(self) -> None:
        if self._terminal is not None:
            self._narrator.once(KEYS, DIM)
        if self._livereload.script:
            self._narrator.once(f"livereload: put {self._livereload.tag} into your pages", DIM)

    def _complain(self, error: SockmgrError) -> None:
        if not self._host.stopping:
            self._screen.complain(error)

    def _on_progress(self, step: Progress) -> None:
        if step.phase == "probation":
            known = self._known.setdefault(step.service, Known())
            known.took.setdefault(step.generation, step.seconds)
            fleets = [service.fleet for service in self._host.services.values()]
            if not any(fleet.trial and fleet.trial.phase is Phase.BOOTING for fleet in fleets):
                self._pace.served(self._loop.time())

    # --- The terminal and the signals ---------------------------------------------------------

    def _on_key(self, key: str) -> None:
        match key:
            case "r":
                self._ask()
            case "s":
                self._task(self._show_status(), "status")
            case "q":
                self._stop(now=self._host.stopping)
            case "\n":
                self._screen.write("\n")
            case _:
                pass

    async def _show_status(self) -> None:
        self._narrator.status(await measured(self._host.status()))

    def _take_signals(self) -> None:
        if self._terminal is None:
            self._loop.add_signal_handler(signal.SIGHUP, self._ask)
            return
        # HUP means that the terminal is closed. The terminal sends TTIN and TTOU to background
        # jobs, so here these two must not scale the services as they do for `run`.
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        for number in (signal.SIGTTIN, signal.SIGTTOU):
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _ask(self) -> None:
        self._pace.ask()
        self._woken.set()

    def _hang_up(self) -> None:
        if not self._host.stopping:
            self._stop(now=False)

    def _stop(self, *, now: bool) -> None:
        self._task(self._host.stop(now), "stop")

    # --- Small things -------------------------------------------------------------------------

    def _task(self, coroutine: Coroutine[None, None, None], name: str) -> None:
        assert self._tasks  # noqa: S101 - there is one while we run
        self._tasks.create_task(coroutine, name=name)

    def _new_watcher(self, rules: Rules) -> Watcher:
        polling = self._config.dev.force_polling
        return Watcher(rules, self._on_notice, self._screen.complain, polling)

    def _on_notice(self) -> None:
        self._pace.noticed(self._loop.time())
        self._woken.set()
