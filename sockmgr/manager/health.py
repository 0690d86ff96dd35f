"""How a manager is, in short: a line for people, until when it is busy, what is wrong with it.

Reads what the rooms know and changes nothing. systemd is told from here (systemd.Subject).
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping

from sockmgr.config.spec import Listen
from sockmgr.fleet.messages import State
from sockmgr.kernel.queues import is_listening
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.service.service import Service

LATE = 5.0  # seconds after which a fleet that was not asked at its deadline is forgotten


class Health:
    """A view of one manager, which says what is configured and hands over each service's task."""

    def __init__(
        self,
        configured: Callable[[], Iterable[Listen]],
        listeners: Listeners,
        services: Mapping[str, Service],
    ) -> None:
        self._configured, self._listeners, self._services = configured, listeners, services
        self._attended: set[Service] = set()

    def attend(self, service: Service, task: asyncio.Task[None]) -> None:
        """Know that `task` takes the facts of `service`, for as long as it lives."""
        self._attended.add(service)
        task.add_done_callback(lambda _: self._attended.discard(service))

    def headline(self) -> str:
        """Return `web: generation 8, 4/4 workers, 0 draining` for each service."""
        return "; ".join(f"{name}: {_line(service)}" for name, service in self._services.items())

    def busy_until(self) -> float:
        """Return when what is under way has ended by its own deadlines; -inf if nothing is."""
        return max(
            (instant for service in self._services.values() for instant in _ends(service)),
            default=-math.inf,
        )

    def flaw(self) -> str:
        """Return what keeps this manager from doing its work, or nothing."""
        now = asyncio.get_running_loop().time()
        for listen in self._configured():
            down = sum(_is_down(queue) for queue in self._listeners.at(listen.address).queues)
            if down:
                return f"listener {listen.name} does not listen"
        for name, service in self._services.items():
            if service not in self._attended:
                return f"nothing takes the facts of service {name}"
            if now > service.fleet.deadline + LATE:
                late = now - service.fleet.deadline
                return f"service {name} missed its deadline by {late:.0f} s"
        return ""


def _line(service: Service) -> str:
    fleet = service.fleet
    draining = sum(worker.state is State.DRAINING for worker in fleet.workers())
    parts = []
    if (current := fleet.current) and not fleet.stopping:
        parts += [f"generation {current.number}", f"{current.ready}/{current.wanted} workers"]
    parts.append(f"{draining} draining")
    if (trial := fleet.trial) and not fleet.stopping:
        parts.append(f"generation {trial.number} {trial.phase}, {trial.ready}/{trial.wanted} ready")
    return ", ".join(parts)


def _ends(service: Service) -> Iterator[float]:
    fleet = service.fleet
    if fleet.stopping:
        yield from (w.deadline for w in fleet.workers() if w.state is State.DRAINING)
    elif fleet.trial:
        yield fleet.trial.deadline


def _is_down(queue: socket.socket) -> bool:
    return queue.type == socket.SOCK_STREAM and not is_listening(queue)
