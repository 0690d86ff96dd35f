"""The services of one manager, and what the config says of them: who starts, rolls, goes.

Owns the services, the config that is in force, and the reading of it. Opens listeners before a
rollout needs them, and closes those that nobody has any more.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from sockmgr.api.records import EventKind
from sockmgr.api.types import Plan, Progress, Verdict
from sockmgr.config import plan
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Address, Listen, Spec
from sockmgr.errors import ControlError, SockmgrError
from sockmgr.launch.resolve import resolve, warnings
from sockmgr.log import Log
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.service.service import Service
from sockmgr.manager.service.verdicts import not_told
from sockmgr.manager.workers.context import WorkerContext

log = Log("sockmgr")

Source = Callable[[], Config]


class Services:
    """All services of a manager, by name in `by_name`. `source` reads the config, each time anew.

    `changed` is called whenever there is something new to tell or to keep.
    """

    def __init__(self, source: Source, listeners: Listeners, changed: Callable[[], None]) -> None:
        self.by_name: dict[str, Service] = {}
        self.config: Config
        self._source, self._listeners, self._changed = source, listeners, changed
        self._asked_for: Counter[Address] = Counter()
        self._is_stopping = False
        self._newest: Config | None = (
            None  # the last one loaded, whether or not its rollout succeeded
        )
        self._warned: set[str] = set()

    def work_in(
        self,
        context: WorkerContext,
        tasks: asyncio.TaskGroup,
        attend: Callable[[Service, asyncio.Task[None]], None],
    ) -> None:
        """Let services run in `tasks` from now on; `attend` hears of the task of each."""
        self._context, self._tasks, self._attend = context, tasks, attend

    def __iter__(self) -> Iterator[Service]:
        return iter(list(self.by_name.values()))

    def find(self, name: str) -> Service:
        """Return the service of this name; raise ControlError if there is none."""
        if name not in self.by_name:
            raise ControlError(
                f"there is no service {name}", do=f"there is: {', '.join(self.by_name)}"
            )
        return self.by_name[name]

    def configured(self) -> Iterable[Listen]:
        """Return the listeners that the config in force has."""
        return self.config.listen

    def add(self, name: str) -> Service:
        """Return a new service, which runs nothing yet."""
        service = Service(name, self._context, self._tasks, self._listeners.at, self._changed, self)
        self.by_name[name] = service
        self._attend(service, self._tasks.create_task(self._run(service), name=name))
        return service

    async def _run(self, service: Service) -> None:
        await service.run()
        if self.by_name.get(service.name) is service:
            del self.by_name[service.name]
        self._changed()

    # --- What the config says --------------------------------------------------------------------

    def read(self) -> Sequence[Spec]:
        """Take the config as it is now, before anything runs; return what each service is to be."""
        self.config = config = self._source()
        return [self._resolve(config, service) for service in config.services]

    def plan(self, text: str | None, file: str) -> Plan:
        """Tell what the config `text` of `file` would change (None: what a reload would)."""
        return plan.plan(self.config, self._source, text, file)

    def _resolve(self, config: Config, service: ServiceConfig) -> Spec:
        for flaw in warnings(service, os.environ):
            if flaw not in self._warned:
                log.warning(EventKind.THIS_LOSES_REQUESTS, where=flaw)
                self._warned.add(flaw)
        return resolve(service, config.listens(), os.environ)

    # --- Rollouts --------------------------------------------------------------------------------

    def cannot_be_heard(self) -> None:
        """Know that what starting workers said may not have reached us."""
        for running in (each for service in self for each in service.processes.running.values()):
            running.cannot_say()

    async def reload(
        self, services: tuple[str, ...], progress: Callable[[Progress], None]
    ) -> list[Verdict]:
        """Replace the workers of these services (none named: of all) by what the config says now.

        Whatever cannot even begin raises SockmgrError, and nothing has changed.
        """
        config = self._source()
        known = [service.name for service in config.services]
        for name in services:
            if name not in known:
                raise ControlError(
                    f"there is no service {name}", do=f"the config has: {', '.join(sorted(known))}"
                )
        removed = () if services else self.by_name.keys() - set(known)
        return await self._roll(config, services or known, removed, progress)

    def are_up_to_date(self) -> bool:
        """Return whether what runs is what the config says; False if the config cannot be read."""
        try:
            config = self._source()
        except SockmgrError:
            return False
        known = all(service.name in self.by_name for service in config.services)
        return config == self.config and known and not self._listeners.renewed

    async def reload_changed(self) -> list[Verdict]:
        """Replace the workers of those services only of which the config says something else.

        And of those that have a listener that was renewed under them.
        """
        config = self._source()
        known = {service.name for service in config.services}
        chosen = plan.changed(self.config, config) | (known - self.by_name.keys())
        renewed = {each.name for each in self if each.addresses & self._listeners.renewed}
        chosen |= renewed & known
        self._listeners.renewed.clear()
        return await self._roll(config, chosen, self.by_name.keys() - known, not_told)

    async def _roll(
        self,
        config: Config,
        chosen: Collection[str],
        removed: Collection[str],
        progress: Callable[[Progress], None],
    ) -> list[Verdict]:
        specs = [self._resolve(config, s) for s in config.services if s.name in chosen]
        self._newest = config
        self._listeners.open([listen for spec in specs for listen in spec.listen])
        addresses = [listen.address for spec in specs for listen in spec.listen]
        self._asked_for.update(addresses)
        try:
            waiting = [self._reload_one(spec, progress) for spec in specs]
            gone = [self.by_name[name].remove() for name in removed]
            verdicts = await asyncio.gather(*waiting)
            committed = {v.service for v in verdicts if v.verdict == "committed"}
            # Not after the drain of what is removed: a later reload may have committed by then.
            self.config = plan.accepted(self.config, config, committed.union(removed))
        finally:
            self._asked_for.subtract(addresses)
            self._changed()
        return [*verdicts, *await asyncio.gather(*gone)]

    async def stop(self, *, now: bool) -> None:
        """Drain everything, or kill it `now`; return when no worker is left."""
        self._is_stopping = True
        await asyncio.gather(*[each.stop_now() if now else each.stop() for each in self])

    def keep(self, address: Address, service: str) -> bool:
        """Tell whether a listener goes on when `service` needs it no more."""
        config = self._newest or self.config
        configured = any(address == listen.address for listen in config.listen)
        others = (each for each in self if each.name != service and not each.fleet.stopping)
        needed = any(address in each.addresses for each in others)
        return needed or (configured and not self._is_stopping)

    def share(self, address: Address, service: str) -> bool:
        """Tell whether another service uses the listener as well."""
        return any(address in each.addresses for each in self if each.name != service)

    def _reload_one(
        self, spec: Spec, progress: Callable[[Progress], None]
    ) -> asyncio.Future[Verdict]:
        if service := self.by_name.get(spec.service):
            return service.reload(spec, progress)
        service = self.add(spec.service)
        verdict = service.reload(spec, progress)
        verdict.add_done_callback(lambda done: _end_if_aborted(service, done))
        return verdict

    def close_unused(self) -> None:
        """Close the listeners that are no longer configured once no generation uses them."""
        kept = {listen.address for listen in self.config.listen}
        if self._listeners.all_in(kept):
            return
        kept.update(address for address, number in self._asked_for.items() if number)
        for service in self:
            kept |= service.addresses
        self._listeners.close_unused(kept)


def _end_if_aborted(service: Service, done: asyncio.Future[Verdict]) -> None:
    """A service that a reload added and that failed leaves nothing behind."""
    if not done.cancelled() and done.result().verdict == "aborted":
        service.stop()
