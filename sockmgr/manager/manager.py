"""The manager: the only event loop. Owns the listeners, the tasks and the services.

Signals, control clients, notify datagrams and listeners that were shut down end here and become
facts for a service, or requests. What is done about them is decided by each service's fleet.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sockmgr import __version__
from sockmgr.api.records import EventKind
from sockmgr.api.types import JournalPlace, Plan, Progress, Status, Verdict
from sockmgr.errors import ControlError, SockmgrError
from sockmgr.kernel.process import can_restore_priority
from sockmgr.log import Log
from sockmgr.manager import scaling
from sockmgr.manager.beginning import FromConfig, FromState
from sockmgr.manager.control.server import ControlServer
from sockmgr.manager.embedding import Companion
from sockmgr.manager.health import Health
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.events import EventFollower, EventLog
from sockmgr.manager.logs.journal import worker_output
from sockmgr.manager.logs.ring import Follower
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.notify import NotifyRouter
from sockmgr.manager.own_paths import OwnPaths
from sockmgr.manager.reaper import Reaper
from sockmgr.manager.service.service import Service
from sockmgr.manager.service.verdicts import not_told
from sockmgr.manager.services import Services, Source
from sockmgr.manager.signals import ASKED_BY, Signals
from sockmgr.manager.status import status_of
from sockmgr.manager.takeover.handover import CONTROL, Handover
from sockmgr.manager.takeover.keeper_store import KeeperStore
from sockmgr.manager.takeover.predecessor import Predecessor
from sockmgr.manager.takeover.store import find_keeper, take_or_start
from sockmgr.manager.workers.context import WorkerContext
from sockmgr.systemd.notifier import Notifier
from sockmgr.systemd.store import FdStore
from sockmgr.systemd.unit import Ending, ending

log = Log("sockmgr")


class Manager:
    """Everything one `sockmgr run` holds. `config_file` is what its source reads, if it is one."""

    config_file = ""

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
        self._server = ControlServer(control, self)
        self._listeners = Listeners(self._on_shutdown)
        self._services = Services(source, self._listeners, self._changed)
        self._health = Health(self._services.configured, self._listeners, self.services)
        self._systemd = Notifier(self._health)
        self.stopping = self._gave_up = False
        self._leaving = ""

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
            signal.pthread_sigmask(signal.SIG_BLOCK, ASKED_BY)
        return 1 if self._gave_up else 0

    async def _run(self, passed: dict[str, list[int]]) -> None:
        loop = asyncio.get_running_loop()
        self._sink.attach(loop)
        # One thread, for calls that wait for other processors (membarrier(2)): never more.
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="kernel"))
        await self._server.open(next(iter(passed.pop(CONTROL, ())), None))
        try:
            store = self._find_store(passed)
            predecessor = Predecessor.of(passed)
            await self._serve(predecessor, store, self._beginning(predecessor))
        finally:
            await self._server.close()
            self._listeners.close_unused(frozenset())

    def _find_store(self, passed: dict[str, list[int]]) -> FdStore | KeeperStore | None:
        found = None if self._companion else self._systemd.store
        return found if found or self._is_last else find_keeper(self._keeper_path, passed)

    def _beginning(self, predecessor: Predecessor) -> FromConfig | FromState:
        """Choose, before anything is touched: a config that cannot be read is found here."""
        if predecessor.state:
            return FromState(predecessor.state, self._services, self._listeners, self._known)
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
        if was := predecessor.state:
            self._history.resume(was.events_since, was.events)
            self._history.tally.resume(was.counts, was.refused)
        beginning.open(predecessor)
        router = NotifyRouter(
            self._notify_path, predecessor.take_notify(self._notify_path), self.services.values
        )
        self._handover = Handover(
            predecessor, store, self._sink, self._changed, copy, router.fileno
        )
        self._paths = self._own_paths(router)
        context = self._context(loop, router)
        reaper = Reaper(loop, self._known, self._end_strays, context.memory.started)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._services.work_in(context, self._tasks, self._health.attend)
                Signals(self, self._tasks).watch(loop)
                beginning.start(predecessor)
                reaper.watch()
                self._be_there(predecessor)
            self._history.on_event = None
            self._handover.dismiss_guard()
            await reaper.end(self._handover.unit)
            self._paths.close()
            self._handover.end()
        finally:
            self._paths.close()
            router.close()

    def _be_there(self, predecessor: Predecessor) -> None:
        """Be the manager from now on: watch what is ours, keep it for the next one, and say so."""
        if predecessor.state:
            self._tasks.create_task(self._catch_up(), name="catch up")
        self._paths.watch()
        if not self._companion:
            self._handover.watch_over()
            # The next manager has to know each event that a client may have seen.
            self._history.on_event = self._handover.keep_soon
        predecessor.close()
        self._changed()
        name = self._services.config.name
        log.info(EventKind.MANAGER_STARTED, pid=os.getpid(), name=name)
        self._tasks.create_task(self._expect_serving(), name="expect serving")
        if self._companion:
            beside = self._companion.run(self)
            self._beside = self._tasks.create_task(beside, name="companion")

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
            can_restore_priority=self._companion is None and can_restore_priority(),
            helpers=lambda: self._handover.pids,
        )

    async def _catch_up(self) -> None:
        """Do what the config says now, which may not be what it said to our predecessor."""
        if self._services.are_up_to_date():
            return
        try:
            with self._systemd.reloading() as ended:
                ended(await self._services.reload_changed())
        except SockmgrError as error:
            log.error(EventKind.RELOAD_REFUSED, error=error)

    async def _expect_serving(self) -> None:
        serving = [service.serving() for service in self._services]
        done, late = await asyncio.wait(serving, timeout=self._serving_timeout)
        for future in done:
            future.exception()  # a service that was stopped before it served is no news
        for future in late:
            future.cancel()
        if late and not self.stopping:
            self._gave_up = True
            log.error(EventKind.NOT_SERVING_IN_TIME, timeout=self._serving_timeout)
            await self.stop(now=False)
        elif not late:
            self._systemd.serving()

    # --- What control clients ask (api.varlink.METHODS) -------------------------------------------

    def status(self, *, sizes: bool = True) -> Status:
        """Tell what runs, with the `sizes` of workers or without."""
        configured, tally = self._services.configured(), self._history.tally
        return status_of(
            configured, self._listeners, self.services, tally, self._started,
            config=self.config_file, sizes=sizes,
        )  # fmt: skip

    def plan(self, text: str | None = None, file: str = "config") -> Plan:
        """Tell what the config `text` of `file` would change (None: what a reload would)."""
        return self._services.plan(text, file)

    def logs(self, service: str = "", lines: int = 100) -> Follower | JournalPlace:
        """Return the last lines about a service ("": all) and what comes, or where they are."""
        if service:
            self._services.find(service)
        return self._sink.place or Follower(self._sink.ring, service, lines)

    def events(
        self, service: str = "", after: int | None = None, last: int | None = None
    ) -> EventFollower:
        """Return the last events (None: all) about a service ("": all) and what comes."""
        if service:
            self._services.find(service)
        return self._history.follow(service, after, last)

    async def reload(
        self,
        services: tuple[str, ...] = (),
        progress: Callable[[Progress], None] = not_told,
    ) -> list[Verdict]:
        """Replace the workers of these services (none named: of all) by what the config says now.

        Whatever cannot even begin raises SockmgrError, and nothing has changed.
        """
        try:
            return await self._reload(services, progress)
        except SockmgrError as error:
            log.error(EventKind.RELOAD_REFUSED, error=error)
            raise

    async def reload_all(self) -> None:
        """Do the same for all, asked by a signal."""
        await self._reload((), not_told, on_signal=True)

    async def _reload(
        self,
        services: tuple[str, ...],
        progress: Callable[[Progress], None],
        *,
        on_signal: bool = False,
    ) -> list[Verdict]:
        with self._systemd.reloading(on_signal=on_signal) as ended:
            self._refuse_if_stopping()
            self._paths.look()
            verdicts = await self._services.reload(services, progress)
            ended(verdicts)
        return verdicts

    async def scale(self, service: str, workers: int, relative: bool = False) -> int:
        """Want this many workers, or so many more; return the number when they are ready."""
        self._refuse_if_stopping()
        found = self._services.find(service)
        wanted = found.wanted + workers if relative else workers
        scaling.check(service, wanted)
        await scaling.scale(found, wanted)
        return wanted

    async def restart_worker(self, worker: str) -> str:
        """Replace this worker (`web@7.2`); return the name of its successor when that is done."""
        self._refuse_if_stopping()
        service, _, place = worker.rpartition("@")
        if not service:
            raise ControlError(
                f"{worker} is no worker",
                means="nothing was changed",
                do="name it as `sockmgr status` does: SERVICE@GENERATION.SLOT",
            )
        return await scaling.restart_worker(self._services.find(service), place)

    async def scale_all(self, more: int) -> None:
        """Want so many more workers of each service."""
        for service in self._services:
            await self.scale(service.name, more, relative=True)

    async def stop(self, now: bool = False) -> None:
        """Drain everything, or kill it `now`; return when no worker is left."""
        self.stopping = True
        log.info(EventKind.STOPPING, now=now)
        self._systemd.stopping()
        await self._services.stop(now=now)

    async def upgrade(self) -> str:
        """Prove new code of the manager in a child; return the version that it soon replaces."""
        self._refuse_if_stopping()
        if self._companion:
            raise ControlError("this is sockmgr dev", do="end it, and start the new version")
        if self._handover.under_way:
            raise ControlError("an upgrade is under way", means="nothing else was begun")
        self._changed()
        await self._handover.prove()
        self._refuse_if_stopping()
        self._leaving = "the manager is being upgraded"
        self._tasks.create_task(self._hand_over(), name="hand over")
        return __version__

    async def _hand_over(self) -> None:
        """Become the new code when every rollout has its verdict and every client its answer."""
        settled = [service.settled() for service in self._services]
        await asyncio.gather(*settled, return_exceptions=True)
        if self.stopping:
            return
        control = await self._server.hand_over()
        log.info(EventKind.UPGRADING, pid=os.getpid())
        self._changed()
        try:
            self._handover.become_new(control, self._listeners, self.services)
        except OSError as error:  # it was there when it was proven
            log.error(EventKind.CANNOT_BECOME_THE_NEW_VERSION, error=error.strerror)
            self._leaving = ""
            await self._server.open(control.detach())

    async def end(self) -> None:
        """Do what systemd sent us SIGTERM for: stop, or make way for the next manager."""
        if self._systemd.store is None or ending() is not Ending.RESTART:
            await self.stop(now=False)
            return
        self._leaving = "the manager is being restarted"
        log.info(EventKind.LEAVING, pid=os.getpid(), workers="go on, for the next manager")
        await self._server.close()
        self._changed()
        self._systemd.close()
        self._handover.leave(self.services)

    # --- What its companion asks (companion.Host) ------------------------------------------------

    @property
    def services(self) -> Mapping[str, Service]:
        """The services by name, for reading."""
        return self._services.by_name

    def give_up(self) -> None:
        """End every start that is under way beside a generation, so that its reload aborts."""
        for service in self._services:
            service.give_up()

    def _refuse_if_stopping(self) -> None:
        if self.stopping or self._leaving:
            why = self._leaving or "the manager is stopping"
            raise ControlError(why, means="nothing was changed")

    def _changed(self) -> None:
        self._services.close_unused()
        self._systemd.changed()
        config = self._services.config
        self._handover.update(config, self._listeners, self.services, self._history)
        if self._companion:
            self._companion.changed()
        if self._beside and not self.services:
            self._beside.cancel()

    # --- What happens to us ----------------------------------------------------------------------

    def _known(self) -> set[int]:
        """Return the processes whose ends are told by their pidfds, or by themselves."""
        workers = {pid for service in self._services for pid in service.processes.pids}
        return workers | set(self._handover.pids)

    def _end_strays(self) -> None:
        for service in self._services:
            service.processes.end_strays()

    def _on_shutdown(self, listener: Listener) -> None:
        """Have a listener mended that a worker shut down, and name who may have done it."""
        for service in self._services:
            if listener.listen.address in service.addresses:
                suspects = ", ".join(running.name for running in service.processes.running.values())
                service.inspect(f"shut down by one of {suspects}")
