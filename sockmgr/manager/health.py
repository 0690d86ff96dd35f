"""How a manager is, in short: a line for people, until when it is busy, what is wrong with it.

Reads what the rooms know and changes nothing. systemd's notifier says it on (notifier.Subject).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from sockmgr.api import varlink
from sockmgr.config.spec import Listen
from sockmgr.fleet.messages import State
from sockmgr.kernel.queues import is_down
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.service.service import Service

LATE = 5.0  # seconds after its deadline in which a fleet got no Tick: then its service is stuck


class Health:
    """A view of one manager; attend() is called with the task of each service."""

    def __init__(
        self,
        configured: Callable[[], Iterable[Listen]],
        listeners: Listeners,
        services: Mapping[str, Service],
    ) -> None:
        self._configured, self._listeners, self._services = configured, listeners, services
        self._attended: set[Service] = set()
        self._has_served = False
        self.is_stopping = False  # it was told to stop
        self.drains_at = -math.inf  # when a stop that serves on for now begins to drain

    def attend(self, service: Service, task: asyncio.Task[None]) -> None:
        """Remember that `task` takes the facts of `service`, for as long as the task lives."""
        self._attended.add(service)
        task.add_done_callback(lambda _: self._attended.discard(service))

    def headline(self) -> str:
        """Return `web: generation 8, 4/4 workers, 0 draining` for each service."""
        return "; ".join(f"{name}: {_line(service)}" for name, service in self._services.items())

    def busy_until(self) -> float:
        """Return when what is under way has ended by its own deadlines; -inf if nothing is."""
        ends = [instant for service in self._services.values() for instant in _ends(service)]
        if self.drains_at > asyncio.get_running_loop().time():
            fleets = (service.fleet for service in self._services.values())
            drains = (each.spec.drain_timeout for f in fleets for each in f.generations.values())
            ends.append(self.drains_at + max(drains, default=0.0))
        return max(ends, default=-math.inf)

    @property
    def serves_any(self) -> bool:
        """Whether any worker of any service can take a connection."""
        return any(each.fleet.serves for each in self._services.values())

    @property
    def is_ready(self) -> bool:
        """Whether new traffic is wanted: all have served, and each that did so still does."""
        services = self._services.values()
        # A service that a reload has added and that boots yet is no reason to turn others away.
        self._has_served |= bool(services) and all(each.fleet.served for each in services)
        serve = all(each.fleet.serves for each in services if each.fleet.served)
        return self._has_served and serve and not self.is_stopping

    def answer(self, service: str, *, ready: bool) -> varlink.Health:
        """Tell whether a service ("": each) serves; with `ready`, whether it wants new traffic."""
        chosen = {service: self._services[service]} if service else self._services
        healthy = bool(chosen) and all(
            each.fleet.serves and (each.fleet.served or not ready) for each in chosen.values()
        )
        if ready:
            healthy = not self.is_stopping and healthy if service else self.is_ready
        word = ("ready" if healthy else "not ready") if ready else ("up" if healthy else "down")
        why = " (stopping)" if self.is_stopping else ""
        counts = ", ".join(f"{name} {_count(each)}" for name, each in chosen.items())
        return varlink.Health(healthy=healthy, line=f"{word}{why}: {counts or 'nothing runs'}")

    def flaw(self) -> str:
        """Return what keeps this manager from doing its work, or nothing."""
        # Only what a restart of the manager would mend counts; what a worker does, the fleet mends.
        now = asyncio.get_running_loop().time()
        for listen in self._configured():
            if any(map(is_down, self._listeners.at(listen.address).queues)):
                return f"listener {listen.name} does not listen"
        for name, service in self._services.items():
            # The task of the service has failed, while the loop, which got us here, goes on.
            if service not in self._attended:
                return f"nothing takes the facts of service {name}"
            if now > service.fleet.deadline + LATE:
                late = now - service.fleet.deadline
                return f"service {name} missed its deadline by {late:.0f} s"
        return ""


def _count(service: Service) -> str:
    serving = service.fleet.serving
    return f"{serving.ready}/{serving.wanted}" if serving else "0/0"


def _line(service: Service) -> str:
    fleet = service.fleet
    draining = fleet.number(State.DRAINING)
    parts = []
    if (current := fleet.current) and not fleet.stopping:
        parts += [f"generation {current.number}", f"{current.ready}/{current.wanted} workers"]
    parts.append(f"{draining} draining")
    # A stop aborts whatever was on trial, so it is not worth a word.
    if (trial := fleet.trial) and not fleet.stopping:
        phase = f"{trial.phase} {trial.share} %" if trial.share else trial.phase
        parts.append(f"generation {trial.number} {phase}, {trial.ready}/{trial.wanted} ready")
    return ", ".join(parts)


def _ends(service: Service) -> Iterator[float]:
    # systemd is asked for so much time and no more, since each of these is bounded.
    fleet = service.fleet
    if fleet.stopping:
        yield from (w.deadline for w in fleet.workers() if w.state is State.DRAINING)
    elif fleet.trial and fleet.trial.deadline < math.inf:  # a canary may wait for somebody
        yield fleet.trial.deadline
