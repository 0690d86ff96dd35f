"""The manager: the only event loop. Owns the listeners, the tasks and the services.

Signals, control clients, notify datagrams and listeners that were shut down end here and become
requests, or facts for a service, whose fleet decides what is done about them.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sockmgr import __version__
from sockmgr.api.records import EventKind
from sockmgr.api.types import Progress, Verdict
from sockmgr.config.canary_keys import once
from sockmgr.errors import ControlError, SockmgrError
from sockmgr.kernel import delegation, priority
from sockmgr.log import Log
from sockmgr.manager import decisions, signals
from sockmgr.manager.answers import Answers
from sockmgr.manager.beginning import FromConfig, FromState
from sockmgr.manager.control.registration import Registration
from sockmgr.manager.control.server import ControlServer
from sockmgr.manager.crash_points import Point, reached
from sockmgr.manager.dispatch.dispatcher import Dispatcher
from sockmgr.manager.embedding import Companion
from sockmgr.manager.health import Health
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.events import EventLog
from sockmgr.manager.logs.journal import worker_output
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.notify import NotifyRouter
from sockmgr.manager.own_paths import OwnPaths
from sockmgr.manager.ready_file import ReadyFile
from sockmgr.manager.reaper import Reaper
from sockmgr.manager.rollback import roll_back
from sockmgr.manager.service.service import Service
from sockmgr.manager.service.verdicts import ignore_progress
from sockmgr.manager.services import Services, Source
from sockmgr.manager.stopping import Stopping
from sockmgr.manager.takeover.handover import CONTROL, Handover
from sockmgr.manager.takeover.keeper_store import KeeperStore
from sockmgr.manager.takeover.predecessor import Predecessor
from sockmgr.manager.takeover.saved_state import Present
from sockmgr.manager.takeover.store import find_keeper, take_or_start
from sockmgr.manager.workers.boot_priority import Boots
from sockmgr.manager.workers.cgroups import Cgroups
from sockmgr.manager.workers.context import WorkerContext
from sockmgr.manager.workers.family import Family
from sockmgr.manager.workers.lookout import Lookout
from sockmgr.systemd.notifier import Notifier
from sockmgr.systemd.store import FdStore
from sockmgr.systemd.unit import Ending, ending, sockets_end

log = Log("sockmgr")


class Manager(Answers):
    """Everything one `sockmgr run` holds. `config_file` is the file that `source` reads, if any."""

    def __init__(
        self,
        source: Source,
        control: Path,
        sink: Sink,
        history: EventLog,
        serving_timeout: float | None,
        companion: Companion | None = None,
    ) -> None:
        self._sink, self._serving_timeout = sink, serving_timeout
        self._history, self._started = history, time.time()
        self._companion = companion
        self._beside: asyncio.Task[None] | None = None
        # Where nothing can survive us: pid 1 is that of a container, which ends with us.
        self._is_last = companion is not None or os.getpid() == 1
        self._notify_path = control.with_suffix(".notify")
        self._keeper_path = control.with_suffix(".keeper")
        self._server, self._registration = ControlServer(control, self), Registration(control)
        self._listeners = Listeners(lambda at: self._services.inspect(at))  # noqa: PLW0108 - they come next
        self._family = Family(lambda: self._handover.pids)
        self._services = Services(source, self._listeners)
        self._health = Health(self._services.configured, self._listeners, self.services)
        self._systemd = Notifier(self._health)
        self._stopping = Stopping(
            self._services, self._health, self._tell_of_stop, waits=companion is None
        )
        self._ready_file = ReadyFile()

    async def run(self, passed: dict[str, list[int]]) -> int:
        """Open, start, and return when the last worker is gone; own what systemd `passed`."""
        try:
            await self._run(passed)
        except SockmgrError as error:
            self._systemd.failed(error)
            raise
        finally:
            self._systemd.close()
            # The loop is about to remove its handlers, and a late signal would end us by itself.
            signal.pthread_sigmask(signal.SIG_BLOCK, signals.ASKED_BY)
        return 1 if self._stopping.gave_up else 0

    async def _run(self, passed: dict[str, list[int]]) -> None:
        loop = asyncio.get_running_loop()
        self._sink.attach(loop)
        # One thread, for calls that wait for other processors (membarrier(2)): never more.
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="kernel"))
        self._is_upgrade = CONTROL in passed
        # The path comes first: of two managers only the one that has it may touch what is below.
        await self._server.open(next(iter(passed.pop(CONTROL, ())), None))
        reached(Point.CONTROL_CLAIMED)
        try:
            # `sockmgr dev` leaves nothing behind, not even where systemd would keep it.
            store: FdStore | KeeperStore | None = None if self._companion else self._systemd.store
            if not (store or self._is_last):
                store = find_keeper(self._keeper_path, passed)
            predecessor = Predecessor.of(passed)
            reached(Point.PREDECESSOR_READ)
            await self._serve(predecessor, store, self._beginning(predecessor))
        finally:
            self._registration.withdraw()
            await self._server.close()
            self._listeners.close_unused(frozenset())

    def _beginning(self, predecessor: Predecessor) -> FromConfig | FromState:
        """Choose, before anything is touched: a config that cannot be read is found here."""
        if predecessor.state:
            return FromState(predecessor.state, self._services, self._listeners, self._family.owned)
        return FromConfig(self._services.read(), self._services, self._listeners)

    async def _serve(
        self,
        predecessor: Predecessor,
        found: FdStore | KeeperStore | None,
        beginning: FromConfig | FromState,
    ) -> None:
        loop = asyncio.get_running_loop()
        store = take_or_start(found, predecessor, None if self._is_last else self._keeper_path)
        copy = self._keeper_path.with_suffix(".state") if isinstance(store, KeeperStore) else None
        # Events go on from the predecessor's: a follower goes on after the last id that it saw.
        if was := predecessor.state:
            self._history.resume(was.events_since, was.events)
            self._history.tally.resume(was.counts, was.refused)
        beginning.open(predecessor)
        reached(Point.LISTENERS_TAKEN)
        self._server.admit(self._services.config.control)
        said = predecessor.take_notify(self._notify_path)
        router = NotifyRouter(self._notify_path, said, self._family, self._changed)
        left = predecessor.descriptors
        self._dispatcher = Dispatcher(self._changed, left, self._is_last, self._is_upgrade)
        present = Present(self._services, self._listeners, self._history, self._dispatcher)
        self._handover = Handover(
            predecessor, store, self._sink, self._changed, present, copy, router.fileno
        )
        self._paths = self._own_paths(router)
        context = self._context(loop, router)
        reaper = Reaper(loop, self._family.owned, self._services.end_strays, context.memory.started)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                upkeep = self._handover.upkeep
                self._services.work_in(context, self._tasks, upkeep, self._attend)
                signals.obey(self._asked_by_signals(), loop, self._tasks)
                beginning.start(predecessor)
                reached(Point.WORKERS_ADOPTED)
                # Workers that are adopted are known only now; before, they would pass for orphans.
                reaper.watch()
                self._be_there(predecessor)
            # No worker is left that a next manager could take over, so nothing more is saved.
            self._history.on_event = None
            self._history.show()
            self._handover.dismiss_guard()
            await self._dispatcher.end()
            await reaper.end(self._handover.unit)
            self._paths.close()
            self._handover.end()
        finally:
            self._handover.rest()
            self._paths.close()
            router.close()

    def _be_there(self, predecessor: Predecessor) -> None:
        """Be the manager from now on: watch over paths and workers, save the state, and log it."""
        if predecessor.state:  # else the config has just been read
            self._tasks.create_task(self._catch_up(), name="catch up")
        self._paths.watch()
        if not self._companion:
            self._handover.watch_over()
            # The next manager has to know each event that a client may have seen.
            self._history.on_event = self._handover.keep_soon
        self._dispatcher.begin()
        predecessor.close()
        self._registration.show(self._services.config.name)
        self._changed()  # the state is saved before anybody hears that a manager is there
        reached(Point.MANAGER_THERE)
        log.info(EventKind.MANAGER_STARTED, pid=os.getpid(), name=self._services.config.name)
        self._tasks.create_task(self._expect_serving(), name="expect serving")
        if self._companion:
            self._beside = self._tasks.create_task(self._companion.run(self), name="companion")

    def _own_paths(self, router: NotifyRouter) -> OwnPaths:
        mends = {"control": self._server.mend, "notify": router.mend}
        mends |= {"keeper": self._handover.mend_keeper, "state": self._handover.mend_copy}
        return OwnPaths(self._notify_path.parent, mends, self._services.cannot_be_heard)

    def _context(self, loop: asyncio.AbstractEventLoop, router: NotifyRouter) -> WorkerContext:
        return WorkerContext(
            loop=loop,
            sink=self._sink,
            output=functools.partial(worker_output, self._sink, loop),
            notify_address=self._paths.looked(router.address),
            # Whoever watches an edit begin to serve waits for the boot, not for live traffic.
            boots=Boots(loop, can_lower=self._companion is None and priority.can_restore()),
            family=self._family,
            lookout=Lookout(loop),
            dispatcher=self._dispatcher,
            cgroups=Cgroups(delegation.find()),
        )

    async def _catch_up(self) -> None:
        """Do what the config says now, which may not be what our predecessor read."""
        if self._services.are_up_to_date():
            return
        try:
            with self._systemd.reloading() as ended, decisions.refusing():
                ended(await self._services.reload_changed())
        except SockmgrError as error:
            log.error(EventKind.RELOAD_REFUSED, error=error)

    async def _expect_serving(self) -> None:
        if await self._services.all_serve(within=self._serving_timeout):
            self._systemd.serving()
        elif not self.stopping:
            # `--timeout` is for scripts, which need an end and an exit code.
            log.error(EventKind.NOT_SERVING_IN_TIME, timeout=self._serving_timeout)
            await self._stopping.give_up()

    def _attend(self, service: Service, task: asyncio.Task[None]) -> None:
        self._health.attend(service, task)
        self._stopping.attend(service, self._tasks)

    def _asked_by_signals(self) -> Mapping[signal.Signals, signals.Ask]:
        return {
            signal.SIGHUP: self.reload_all,
            signal.SIGTERM: self.end,
            # A second Ctrl-C means that somebody is tired of waiting for the drain.
            signal.SIGINT: lambda: self.stop(now=self.stopping),
            signal.SIGQUIT: lambda: self.stop(now=True),
            signal.SIGUSR2: self.upgrade,
            signal.SIGTTIN: lambda: self.scale_all(+1),
            signal.SIGTTOU: lambda: self.scale_all(-1),
        }

    # --- What control clients ask (api.varlink.METHODS) -------------------------------------------

    async def reload(
        self,
        services: tuple[str, ...] = (),
        progress: Callable[[Progress], None] = ignore_progress,
        together: bool = False,
        canary: tuple[int, ...] | None = None,
        seconds: float | None = None,
        hold: bool | None = None,
    ) -> list[Verdict]:
        """Replace the workers of these services (none named: of all) by what the config says now.

        With `together`, or if the config says so, all of them or none. A canary is as the config
        has it, but for what is given here. Whatever cannot even begin raises SockmgrError, and
        nothing has changed.
        """
        adapt = functools.partial(once, steps=canary, seconds=seconds, hold=hold)
        reload = functools.partial(
            self._services.reload, services, progress, together=together, adapt=adapt
        )
        try:
            return await self._roll(reload)
        except SockmgrError as error:
            log.error(EventKind.RELOAD_REFUSED, error=error)
            raise

    async def reload_all(self) -> None:
        """Replace the workers of all services, since a signal asked for it."""
        reload = functools.partial(self._services.reload, (), ignore_progress)
        await self._roll(reload, on_signal=True)

    async def rollback(
        self,
        service: str = "",
        to: int | None = None,
        progress: Callable[[Progress], None] = ignore_progress,
    ) -> list[Verdict]:
        """Bring back generation `to` of a service, or the one before: see rollback.py."""
        return await self._roll(functools.partial(roll_back, self._services, service, to, progress))

    async def _roll(
        self, ask: Callable[[], Awaitable[list[Verdict]]], *, on_signal: bool = False
    ) -> list[Verdict]:
        with self._systemd.reloading(on_signal=on_signal) as ended, decisions.refusing():
            self._refuse_if_stopping()
            self._paths.look()
            verdicts = await ask()
            ended(verdicts)
        return verdicts

    async def stop(self, now: bool = False) -> None:
        await self._stopping.stop(now=now)

    def _tell_of_stop(self) -> None:
        self.stopping = True
        self._systemd.stopping()
        self._changed()

    async def upgrade(self) -> str:
        """Prove new code of the manager in a child; return the version that it soon replaces."""
        self._refuse_if_stopping()
        if self._companion:
            raise ControlError("this is sockmgr dev", do="end it, and start the new version")
        if self._handover.under_way:
            raise ControlError("an upgrade is under way", means="nothing else was begun")
        decisions.refuse_if_held(self.services)
        self._changed()  # the child is to read what is so now
        await self._handover.prove()
        # A stop, or a canary that waits for somebody, may have come meanwhile.
        self._refuse_if_stopping()
        decisions.refuse_if_held(self.services)
        self._leaving = "the manager is being upgraded"
        self._tasks.create_task(self._hand_over(), name="hand over")
        return __version__

    async def _hand_over(self) -> None:
        """Become the new code when every rollout has its verdict and every client its answer."""
        # A rollout would go on in the new code, but the clients that wait for its verdict would
        # never hear it, since their connections end with this code.
        settled = [service.settled() for service in self._services]
        await asyncio.gather(*settled, return_exceptions=True)
        if self.stopping:
            return
        control = await self._server.hand_over()
        reached(Point.CONTROL_HANDED_OVER)
        log.info(EventKind.UPGRADING, pid=os.getpid())
        self._changed()
        try:
            self._handover.become_new(control)
        except OSError as error:  # it was there when it was proven
            log.error(EventKind.CANNOT_BECOME_THE_NEW_VERSION, error=error.strerror)
            self._leaving = ""
            await self._server.open(control.detach())

    async def end(self) -> None:
        """Do what systemd sent us SIGTERM for: stop, or make way for the next manager."""
        how = ending() if self._systemd.store else Ending.UNKNOWN
        if how is not Ending.RESTART:
            if how is Ending.STOP and sockets_end():
                self._listeners.be_last()
            await self.stop(now=False)
            return
        self._leaving = "the manager is being restarted"
        log.info(EventKind.LEAVING, pid=os.getpid(), workers="go on, for the next manager")
        # Clients get their answers first; whatever has changed by then is saved last.
        await self._server.close()
        self._changed()
        self._systemd.close()
        self._handover.leave()

    # --- What its companion asks (companion.Host) ------------------------------------------------

    def give_up(self) -> None:
        for service in self._services:
            if trial := service.fleet.trial:
                service.processes.kill_unready(trial.number)

    def _changed(self) -> None:
        # Listeners are closed before the state is saved, so that it names none that is gone.
        self._services.close_unused()
        self._systemd.changed()
        self._server.admit(self._services.config.control)
        if not self._companion:
            ready_file = self._services.config.ready_file
            self._ready_file.show(ready_file, ready=self._health.is_ready)
        self._handover.update()
        self._history.show()
        if self._companion:
            self._companion.changed()
        # The manager ends when no task is left, so its companion must end with the last service.
        if self._beside and not self.services:
            self._beside.cancel()
