"""The manager: the only event loop. Owns the listeners, the tasks and the services.

Signals, control clients, notify datagrams and listeners that were shut down end here and become
facts for a service, or requests. What is done about them is decided by each service's fleet.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sockmgr.control import ControlServer
from sockmgr.core import plan
from sockmgr.core.config import Config, ServiceConfig
from sockmgr.core.errors import ControlError, SockmgrError
from sockmgr.core.model import Address, Spec, describe_exit
from sockmgr.core.report import Progress, Status, Verdict
from sockmgr.gauge import Gauge
from sockmgr.kernel.notify import NotifySocket, belongs
from sockmgr.kernel.process import (
    become_subreaper,
    can_restore_priority,
    reap_strays,
    reset_signals,
)
from sockmgr.kernel.spawn import close_on_exec_all
from sockmgr.listener import Listener
from sockmgr.listeners import Listeners
from sockmgr.log import Log
from sockmgr.output import RecordHandler, Sink
from sockmgr.resolve import resolve, warnings
from sockmgr.running import Surroundings
from sockmgr.service import Service
from sockmgr.status import status_of
from sockmgr.systemd import Notifier, passed_sockets
from sockmgr.vitals import Vitals

log = Log("sockmgr")

ASKED_BY = (
    signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN,
    signal.SIGTTOU,
)  # fmt: skip
Source = Callable[[], Config]


def run(
    source: Source, *, control: Path, as_json: bool = False, timeout: float | None = None
) -> int:
    """Run until stopped; return the exit code. `source` reads the config, again at each reload.

    `as_json` makes every line on stderr a JSON object. When not all services serve within
    `timeout` seconds, everything is stopped and the exit code is 1.
    """
    sink = Sink(as_json=as_json)
    logging.basicConfig(level=logging.INFO, handlers=[RecordHandler(sink)], force=True)
    close_on_exec_all()
    reset_signals()
    become_subreaper()
    try:
        # Before any descriptor of our own could pass for one of systemd's.
        passed = passed_sockets()
        return asyncio.run(Manager(source, control, sink, timeout).run(passed))
    finally:
        sink.close()


class Manager:
    """Everything one `sockmgr run` holds."""

    def __init__(
        self, source: Source, control: Path, sink: Sink, serving_timeout: float | None
    ) -> None:
        self._source, self._sink, self._serving_timeout = source, sink, serving_timeout
        self._notify_path = control.with_suffix(".notify")
        self._server = ControlServer(control, self)
        self._listeners = Listeners(self._on_shutdown)
        self._asked_for: Counter[Address] = Counter()
        self._services: dict[str, Service] = {}
        self._vitals = Vitals(lambda: self._config.listen, self._listeners, self._services)
        self._systemd = Notifier(self._vitals)
        self._stopping = self._gave_up = False
        self._warned: set[str] = set()
        self._foreign = 0

    async def run(self, passed: dict[str, list[socket.socket]]) -> int:
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

    async def _run(self, passed: dict[str, list[socket.socket]]) -> None:
        loop = asyncio.get_running_loop()
        self._sink.attach(loop)
        # One thread, for calls that wait for other processors (membarrier(2)): never more.
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="kernel"))
        self._config = self._source()
        specs = [self._resolve(self._config, service) for service in self._config.services]
        await self._server.open()
        try:
            self._listeners.open(self._config.listen, passed)
            await self._serve(specs)
        finally:
            await self._server.close()
            self._listeners.close_unused(frozenset())

    async def _serve(self, specs: Sequence[Spec]) -> None:
        loop = asyncio.get_running_loop()
        notify = NotifySocket(self._notify_path)
        loop.add_reader(notify, self._on_notify, notify)
        self._around = Surroundings(
            loop=loop,
            sink=self._sink,
            notify_path=str(self._notify_path),
            can_restore_priority=can_restore_priority(),
        )
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._watch_signals(loop)
                for spec in specs:
                    self._add(spec.service).start(spec)
                log.info("manager started", pid=os.getpid(), name=self._config.name)
                self._tasks.create_task(self._expect_serving(), name="expect serving")
        finally:
            loop.remove_reader(notify)
            notify.close()

    async def _expect_serving(self) -> None:
        serving = [service.serving() for service in self._services.values()]
        done, late = await asyncio.wait(serving, timeout=self._serving_timeout)
        for future in done:
            future.exception()  # a service that was stopped before it served is no news
        for future in late:
            future.cancel()
        if late and not self._stopping:
            self._gave_up = True
            log.error("not serving in time", timeout=self._serving_timeout)
            await self.stop(now=False)
        elif not late:
            self._systemd.serving()

    # --- What control clients ask (control.Handler) ----------------------------------------------

    def status(self) -> Status:
        """Tell what runs."""
        return status_of(self._config.listen, self._listeners, self._services)

    def plan(self) -> list[str]:
        """Tell what a reload would change."""
        return [change.text for change in plan.diff(self._config, self._source())]

    async def reload(
        self, services: tuple[str, ...], progress: Callable[[Progress], None]
    ) -> list[Verdict]:
        """Replace the workers of these services (none named: of all) by what the config says now.

        Whatever cannot even begin raises SockmgrError, and nothing has changed.
        """
        return await self._systemd.reload(self._reload(services, progress))

    async def _reload(
        self, services: tuple[str, ...], progress: Callable[[Progress], None]
    ) -> list[Verdict]:
        self._refuse_if_stopping()
        config = self._source()
        known = {service.name for service in config.services}
        removed = [] if services else [s for n, s in self._services.items() if n not in known]
        for name in services:
            if name not in known:
                raise ControlError(
                    f"there is no service {name}", do=f"the config has: {', '.join(sorted(known))}"
                )
        chosen = [s for s in config.services if not services or s.name in services]
        specs = [self._resolve(config, service) for service in chosen]
        self._listeners.open([listen for spec in specs for listen in spec.listen])
        addresses = [listen.address for spec in specs for listen in spec.listen]
        self._asked_for.update(addresses)
        try:
            waiting = [self._reload_one(spec, progress) for spec in specs]
            verdicts = [*await asyncio.gather(*waiting), *(self._remove(s) for s in removed)]
            self._accept(config, {v.service for v in verdicts if v.verdict == "committed"})
        finally:
            self._asked_for.subtract(addresses)
            self._close_unused()
        return verdicts

    async def scale(self, service: str, workers: int, relative: bool) -> int:
        """Want this many workers, or so many more; return the number when they are ready."""
        self._refuse_if_stopping()
        if service not in self._services:
            raise ControlError(
                f"there is no service {service}", do=f"there is: {', '.join(self._services)}"
            )
        found = self._services[service]
        wanted = found.wanted + workers if relative else workers
        if wanted < 1:
            raise ControlError(
                f"{service} cannot have {wanted} workers",
                means="nothing was changed",
                do="ask for 1 or more; `sockmgr stop` ends the service",
            )
        await found.scale(wanted)
        return wanted

    async def stop(self, now: bool) -> None:
        """Drain everything, or kill it `now`; return when no worker is left."""
        self._stopping = True
        log.info("stopping", now=now)
        self._systemd.stopping()
        services = list(self._services.values())
        await asyncio.gather(*[s.stop_now() if now else s.stop() for s in services])

    # --- Services --------------------------------------------------------------------------------

    def _resolve(self, config: Config, service: ServiceConfig) -> Spec:
        for flaw in warnings(service, os.environ):
            if flaw not in self._warned:
                log.warning("this loses requests", where=flaw)
                self._warned.add(flaw)
        return resolve(service, config.listens(), os.environ)

    def _add(self, name: str) -> Service:
        service = Service(name, self._around, self._tasks, self._listeners.at, self._changed)
        self._services[name] = service
        self._vitals.attend(service, self._tasks.create_task(self._run_service(service), name=name))
        return service

    async def _run_service(self, service: Service) -> None:
        await service.run()
        if self._services.get(service.name) is service:
            del self._services[service.name]
        self._changed()

    def _reload_one(
        self, spec: Spec, progress: Callable[[Progress], None]
    ) -> asyncio.Future[Verdict]:
        service = self._services.get(spec.service)
        if service:
            return service.reload(spec, progress)
        service = self._add(spec.service)
        verdict = service.reload(spec, progress)
        verdict.add_done_callback(lambda done: _end_if_aborted(service, done))
        return verdict

    def _remove(self, service: Service) -> Verdict:
        service.stop()
        number = service.fleet.current.number if service.fleet.current else 0
        return Verdict(
            service=service.name,
            verdict="committed",
            generation=number,
            seconds=0.0,
            reason="removed from the config",
            receipt=Gauge(()).receipt(len(service.running)),
            kept=0,
        )

    def _accept(self, new: Config, committed: set[str]) -> None:
        """Take over from `new` what has been committed; the rest stays as it was."""
        known = {service.name for service in new.services}
        services = {s.name: s for s in self._config.services if s.name not in committed - known}
        services |= {s.name: s for s in new.services if s.name in committed}
        listens = self._config.listens()
        for service in new.services:
            if service.name in committed:
                listens |= {name: new.listens()[name] for name in service.listen}
        used = {name for service in services.values() for name in service.listen}
        self._config = Config(
            name=self._config.name,
            listen=tuple(listen for name, listen in listens.items() if name in used),
            services=tuple(services.values()),
            dev=new.dev,
        )

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise ControlError("the manager is stopping", means="nothing was changed")

    def _changed(self) -> None:
        self._close_unused()
        self._systemd.changed()

    def _close_unused(self) -> None:
        """Close the listeners that are no longer configured once no generation uses them."""
        kept = {listen.address for listen in self._config.listen}
        if self._listeners.all_in(kept):
            return
        kept.update(address for address, number in self._asked_for.items() if number)
        for service in self._services.values():
            kept |= service.addresses
        self._listeners.close_unused(kept)

    # --- What happens to us ----------------------------------------------------------------------

    def _watch_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        asked: dict[signal.Signals, Callable[[], Coroutine[None, None, None]]] = {
            signal.SIGHUP: self._reload_all,
            signal.SIGTERM: lambda: self.stop(now=False),
            signal.SIGINT: lambda: self.stop(now=self._stopping),
            signal.SIGQUIT: lambda: self.stop(now=True),
            signal.SIGTTIN: lambda: self._scale_all(+1),
            signal.SIGTTOU: lambda: self._scale_all(-1),
        }
        for number, ask in asked.items():
            loop.add_signal_handler(number, self._by_signal, number, ask)
        loop.add_signal_handler(signal.SIGUSR1, log.info, "nothing to reopen: records go to stderr")
        loop.add_signal_handler(signal.SIGUSR2, log.error, "this version cannot upgrade itself")
        loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def _by_signal(
        self, number: signal.Signals, ask: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        log.info("signal", received=number.name)
        self._tasks.create_task(ask(), name=number.name)

    async def _reload_all(self) -> None:
        try:
            await self.reload((), _not_told)
        except SockmgrError as error:
            log.error("reload refused", error=error)

    async def _scale_all(self, more: int) -> None:
        for name in list(self._services):
            try:
                await self.scale(name, more, relative=True)
            except SockmgrError as error:
                log.error("scale refused", error=error)

    def _reap(self) -> None:
        """Reap what orphaned descendants left; the workers' own exits are told by their pidfds."""
        known = {pid for service in self._services.values() for pid in service.pids}
        reaped = reap_strays(known)
        for pid, status in reaped:
            log.info("descendant reaped", pid=pid, how=describe_exit(status))
        for service in self._services.values() if reaped else ():
            service.orphans_reaped()

    def _on_notify(self, notify: NotifySocket) -> None:
        running = [r for service in self._services.values() for r in service.running.values()]
        before = notify.garbage + self._foreign
        for message in notify.receive():
            sender = next((r for r in running if belongs(message.pid, r.pid)), None)
            if sender:
                sender.notified(message.fields)
            else:
                self._foreign += 1
        ignored = notify.garbage + self._foreign
        if ignored.bit_length() > before.bit_length():  # from 1, 2, 4, 8 … on: a flood is no news
            log.warning("notify datagrams ignored", garbage=notify.garbage, foreign=self._foreign)

    def _on_shutdown(self, listener: Listener) -> None:
        """Have a listener mended that a worker shut down, and name who may have done it."""
        for service in self._services.values():
            if listener.listen.address in service.addresses:
                suspects = ", ".join(running.name for running in service.running.values())
                service.inspect(f"shut down by one of {suspects}")


def _not_told(news: Progress) -> None:
    """Hear nothing: a signal has nobody to tell how far its reload is."""


def _end_if_aborted(service: Service, done: asyncio.Future[Verdict]) -> None:
    """A service that a reload added and that failed leaves nothing behind."""
    if not done.cancelled() and done.result().verdict == "aborted":
        service.stop()
