"""The services of one manager, and what the config says of them: which start, reload or go.

Owns the services, the config that is in force, and the reading of it. Opens listeners before a
rollout needs them, and closes those that no service has any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial

from msgspec.structs import replace

from sockmgr.api.records import EventKind
from sockmgr.api.types import Plan, Progress, Verdict
from sockmgr.config import plan
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Address, Listen, Spec
from sockmgr.errors import ControlError, SockmgrError
from sockmgr.fleet.group import Together
from sockmgr.fleet.messages import Tick
from sockmgr.launch import access, virtual_env
from sockmgr.launch.resolve import check, prepare
from sockmgr.launch.surroundings import here
from sockmgr.log import Log
from sockmgr.manager.company import Company, wanted
from sockmgr.manager.crash_points import Point, reached
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.service.memory_check import MEASURED, fitting
from sockmgr.manager.service.owners import Owners
from sockmgr.manager.service.pooling import check_shares
from sockmgr.manager.service.service import Service
from sockmgr.manager.service.upkeep import Upkeep
from sockmgr.manager.service.verdicts import ignore_progress
from sockmgr.manager.workers import asking
from sockmgr.manager.workers.context import WorkerContext

log = Log("sockmgr")

Source = Callable[[], Config]


class Services:
    """All services of a manager, by name; `source` reads the config, each time anew."""

    def __init__(self, source: Source, listeners: Listeners) -> None:
        self.by_name: dict[str, Service] = {}
        self.config: Config
        self._source, self._listeners = source, listeners
        self._company, self.owners = Company(self.by_name), Owners(self.by_name)
        self._asked_for: Counter[Address] = Counter()
        self.all_stop = False  # the manager is to end, and not only some services
        # What was loaded last, though its rollouts may have failed; and by a manager before us.
        self.newest: Config | None = None
        self.found: Config | None = None
        self._warned: set[str] = set()

    def work_in(
        self,
        context: WorkerContext,
        tasks: asyncio.TaskGroup,
        upkeep: Upkeep,
        attend: Callable[[Service, asyncio.Task[None]], None],
    ) -> None:
        """Let services run in `tasks` from now on; `attend` is called with the task of each.

        `upkeep` is called whenever the status or the state that is kept may have changed.
        """
        self._context, self._tasks, self._upkeep = context, tasks, upkeep
        self._attend = attend

    def __iter__(self) -> Iterator[Service]:
        return iter(list(self.by_name.values()))  # one that stops meanwhile leaves `by_name`

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
        service = Service(name, self._context, self._tasks, self._listeners.at, self._upkeep, self)
        self.by_name[name] = service
        self._attend(service, self._tasks.create_task(self._run(service), name=name))
        reached(Point.SERVICE_ADDED)
        return service

    async def _run(self, service: Service) -> None:
        await service.run()
        # A reload may have added a new service of this name while the old one was ending.
        if self.by_name.get(service.name) is service:
            self.forget(service.name)
        reached(Point.SERVICE_GONE)
        self.heed(service.name)
        self._upkeep.now()

    def forget(self, name: str) -> None:
        """Know a service no more that has ended, nor the config in force, unless all are to end."""
        del self.by_name[name]
        if not self.all_stop:
            self.config = plan.without(self.config, name)
            self.newest = self.newest and plan.without(self.newest, name)

    def start(self, specs: Sequence[Spec]) -> None:
        """Run these, each as the first generation of a service that was added, in their order."""
        patience = self._company.patience(specs)
        for spec in specs:
            self.by_name[spec.service].start(spec, patience[spec.service])

    # --- What the config says --------------------------------------------------------------------

    def read(self) -> Sequence[Spec]:
        """Take the config as it is now, before anything runs; return the spec of each service."""
        self.config = config = self._current()
        return [self._resolve(config, service) for service in config.services]

    def _current(self) -> Config:
        config = self._source()
        with config.placing("control"):
            access.resolve(config.control)
        return config

    def plan(self, text: str | None, file: str) -> Plan:
        """Return what the config `text` of `file` would change (None: what a reload would)."""
        rollbacks = {s.name: s.past.history.rollback for s in self if s.past.history.rollback}
        owned = {each.listen.address: each.owns_path for each in self._listeners.all}
        not_ours = [at for at, is_ours in owned.items() if at.traits.has_path and not is_ours]
        standing = plan.Standing(not_ours, rollbacks, self._directories, check)
        return plan.plan(self.config, self._source, text, file, here(), standing)

    def _directories(self, service: ServiceConfig) -> tuple[str, str]:
        """Return the real directory in which a service runs, and that of a reload now."""
        running = self.by_name.get(service.name)
        if running is None or running.fleet.current is None:
            return "", ""
        with contextlib.suppress(OSError):  # our own directory is gone: a reload says so
            return running.fleet.current.spec.cwd, os.path.realpath(service.cwd or ".")
        return "", ""

    def _resolve(self, config: Config, service: ServiceConfig) -> Spec:
        with config.placing("service", service.name):
            prepared = prepare(service, config.listens(), os.environ)
            for flaw in prepared.warnings():
                if flaw not in self._warned:
                    log.warning(EventKind.THIS_LOSES_REQUESTS, where=flaw)
                    self._warned.add(flaw)
            spec = prepared.spec()
            if borrowed := virtual_env.borrowed(service, spec.executable, spec.cwd):
                log.info("release without an environment", service=service.name, because=borrowed)
            return spec

    def end_strays(self) -> None:
        """End what their workers left, now that orphans were reaped: more may be our children."""
        for service in self:
            service.processes.end_strays()

    # --- Rollouts --------------------------------------------------------------------------------

    async def all_serve(self, *, within: float | None) -> bool:
        """Return True once all services serve, or False after so many seconds."""
        serving = [service.serving() for service in self]
        done, late = await asyncio.wait(serving, timeout=within)
        for future in done:
            future.exception()  # a service that was stopped before it served is no news
        for future in late:
            future.cancel()
        return not late

    def cannot_be_heard(self) -> None:
        """Have starting workers not fail for what they may have said in vain."""
        for running in (each for service in self for each in service.processes.running.values()):
            running.cannot_say()

    def inspect(self, listener: Listener) -> None:
        """Mend a listener that a worker has shut down, and name those who may have done it."""
        for service in self:
            if listener.listen.address in service.addresses:
                suspects = ", ".join(running.name for running in service.processes.running.values())
                service.inspect(f"shut down by one of {suspects}")

    async def reload(
        self,
        services: tuple[str, ...],
        progress: Callable[[Progress], None],
        *,
        together: bool = False,
        adapt: Callable[[Spec], Spec] = lambda spec: spec,
    ) -> list[Verdict]:
        """Replace the workers of these services (none named: of all) by what the config says now.

        `adapt` changes the specs for once. With `together`, or if the config says so, all of them
        or none. Whatever cannot even begin raises SockmgrError, and nothing has changed.
        """
        config = self._current()
        known = [service.name for service in config.services]
        for name in services:
            if name not in known:
                raise ControlError(
                    f"there is no service {name}", do=f"the config has: {', '.join(sorted(known))}"
                )
        # A reload of `web` is about web alone: only a reload of everything may remove services.
        removed = () if services else self.by_name.keys() - set(known)
        together, chosen = together or config.together, services or known
        specs = [adapt(self._resolve(config, s)) for s in config.services if s.name in chosen]
        return await self._roll(config, specs, removed, progress, together=together)

    def are_up_to_date(self) -> bool:
        """Return whether what runs is what the config says; False if the config cannot be read."""
        try:
            config = self._source()
        except SockmgrError:
            return False
        # One that was removed and is there still was to stop, which nobody remembers.
        known = {service.name for service in config.services} == self.by_name.keys()
        is_new = self._listeners.renewed or self._astray(config)
        return config == self.config and known and not is_new

    def _astray(self, config: Config) -> set[str]:
        """Return the services that roll to what a manager before us loaded, unlike `config`."""
        other = plan.changed(self.newest or self.config, config)
        return {each.name for each in self if each.name in other and each.rolls}

    async def reload_changed(self) -> list[Verdict]:
        """Replace the workers of the services whose config has changed.

        Also those of services whose listener was replaced by a new socket.
        """
        config = self._source()
        known = {service.name for service in config.services}
        chosen = plan.changed(self.config, config) | self._astray(config)
        # What our predecessor loaded is under way, or has failed: it is not to be tried once more.
        tried = chosen - plan.changed(self.newest or self.config, config)
        asked = plan.addresses(config, chosen - tried)
        # But one that others are to get a listener from has to go together with them.
        still = (s.name for s in self if not (s.fleet.pending or wanted(s.fleet) & asked))
        going_on = tried.intersection(still)
        trials = [(each, trial) for each in self if (trial := each.fleet.trial)]
        under_way = [each.join(trial) for each, trial in trials if each.name in going_on]
        chosen = (chosen - going_on) | (known - self.by_name.keys())
        renewed = {each.name for each in self if each.addresses & self._listeners.renewed}
        chosen |= renewed & known
        self._listeners.renewed.clear()  # the rollout below gives their workers the new sockets
        together = config.together or self._company.goes_together
        # Those that our predecessor had stopped, in a reload without a verdict yet, as well.
        removed = (self.by_name.keys() | {each.name for each in self.config.services}) - known
        specs = [self._resolve(config, s) for s in config.services if s.name in chosen]
        return await self._roll(
            config, specs, removed, ignore_progress, together=together, under_way=under_way
        )

    async def _roll(
        self,
        config: Config,
        specs: Sequence[Spec],
        removed: Collection[str],
        progress: Callable[[Progress], None],
        *,
        together: bool,
        under_way: Sequence[asyncio.Future[Verdict]] = (),
    ) -> list[Verdict]:
        for spec in specs:
            was = self.by_name.get(spec.service)
            if was and was.fleet.stopping and not self.all_stop:
                raise ControlError(
                    f"{spec.service} was removed by a reload, and its workers drain still",
                    means="nothing was changed",
                    do="reload again when `sockmgr status` shows them no more",
                )
        # What may be refused comes first, so that a refusal leaves everything as it was: a spec
        # that cannot be resolved has been by now, then comes an address that cannot be bound.
        self._listeners.open([listen for spec in specs for listen in spec.listen])
        addresses = [listen.address for spec in specs for listen in spec.listen]
        # No generation uses these listeners yet, and close_unused() must spare them all the same.
        self._asked_for.update(addresses)
        try:
            self.check_probes(specs)
            for spec in specs:
                check_shares(spec, [self._listeners.at(listen.address) for listen in spec.listen])
            services = [self.by_name[s.service] for s in specs if s.service in self.by_name]
            workers = {each.name: each.processes.newest(MEASURED) for each in services}
            fitted = await fitting(specs, workers)
            together = together and len(fitted) + len(under_way) + len(removed) > 1
            groups = self._company.join(fitted, removed, together=together)
            number = self._say(config, {s.service for s in fitted}, removed, together=together)
            waiting = [*self._begin(fitted, config, progress, groups), *under_way]
            # Those that go are part of what goes together: they stay if it fails.
            leaving = [] if together else [self._remove(removed)]
            verdicts = await asyncio.gather(*waiting)
            committed = [each.service for each in verdicts if each.verdict == "committed"]
            gone = removed if together and len(committed) == len(verdicts) else ()
            if due := self._company.conclude(number, gone, committed):
                leaving.append(self._remove(due))
            self._accept(config, *set(removed) - self.by_name.keys())
            reached(Point.CONFIG_ACCEPTED)
        finally:
            self._asked_for.subtract(addresses)
            self._listeners.conform(self.config.listen)
            self._upkeep.now()
        return verdicts + [verdict for each in leaving for verdict in await each]

    def _say(
        self, config: Config, names: Set[str], removed: Collection[str], *, together: bool
    ) -> int:
        """Note that a reload says by `config` what these services are to be; return its number."""
        # If we die before all have committed, those that were to go stay, unless the config says so
        # again: what runs must be known then.
        now = names if together else {*names, *removed}
        self.newest = plan.accepted(self.newest or self.config, config, now)
        return self._company.say((*names, *removed))

    def accept_found(self, service: str) -> None:
        """Have the config in force say of `service` what a manager before us had loaded."""
        # A later reload, of which there is no generation, may have had another listener, which is
        # never opened then, or no such service.
        found = self.found or self.config
        current = self.by_name[service].fleet.current
        if current is None or plan.addresses(found, {service}) != current.spec.addresses:
            return
        if any(each.name == service for each in found.services):
            self._accept(found, service)

    def _accept(self, config: Config, *committed: str) -> None:
        self.config = plan.accepted(self.config, config, committed)

    def _remove(self, names: Iterable[str]) -> asyncio.Task[list[Verdict]]:
        # Another reload without them may have ended some meanwhile.
        services = [self.by_name[name] for name in names if name in self.by_name]
        return self._tasks.create_task(self._company.end(services, Service.remove))

    def check_probes(self, specs: Iterable[Spec]) -> None:
        """Raise ListenError if a probe of some spec could reach others than whom it is for."""
        for spec in specs:
            asking.check(spec, [self._listeners.at(listen.address) for listen in spec.listen])

    async def stop(self, *, now: bool) -> None:
        """Drain everything, or kill it `now`; return when no worker is left."""
        self.all_stop = True
        if now:
            await asyncio.gather(*[each.stop_now() for each in self])
        else:
            await self._company.end(list(self), Service.stop)

    def heed(self, service: str) -> None:
        """Look what the last fact of `service` means for those that wait for it, or it for them."""
        self._company.heed(service)
        for name in self.owners.outdated():
            self.by_name[name].put(Tick())
        for name in self.owners.replaced() - self._company.said.keys():
            self.by_name[name].stop()  # as the manager before us did, which nobody else remembers
        found = self.by_name.get(service)
        if found and found.fleet.is_nothing and not found.fleet.stopping:
            found.stop()  # a reload has added it, and its first generation failed

    def keep(self, address: Address) -> bool:
        """Return whether some service has a listener, or will, and does not only drain there."""
        opened = self._asked_for[address] and not self.all_stop  # a reload may bring it back
        going = (each.fleet for each in self if not each.fleet.stopping)
        return bool(opened) or any(address in wanted(fleet) for fleet in going)

    def _begin(
        self,
        specs: Sequence[Spec],
        config: Config,
        progress: Callable[[Progress], None],
        groups: Mapping[str, Together],
    ) -> list[asyncio.Future[Verdict]]:
        patience = self._company.patience(specs)
        verdicts = []
        # All are looked at before any begins, which would have leases of its own by then.
        foreign = [self.owners.leases_beside(each.service, each.addresses) for each in specs]
        for spec, leases in zip(specs, foreign, strict=True):
            service = self.by_name.get(name := spec.service) or self.add(name)
            own = replace(spec, foreign=leases) if leases else spec
            more = patience.get(name, 0.0), None, partial(self._accept, config, name)
            verdicts.append(service.reload(own, progress, groups.get(name), *more))
        return verdicts

    def close_unused(self) -> None:
        """Close each listener that is no longer configured and that no generation uses any more."""
        kept = {listen.address for listen in self.config.listen}
        # This is asked after each fact of each service, and nearly always all are configured.
        if self._listeners.all_in(kept):
            return
        kept.update(+self._asked_for, *(each.addresses for each in self))
        self._listeners.close_unused(kept)
