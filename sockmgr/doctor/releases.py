"""Look whether what runs is called what `release` in the config says. Runs no command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sockmgr.api.types import ServiceStatus
from sockmgr.config.config import Config
from sockmgr.doctor.finding import Check, Finding

_LATEST = 10.0  # seconds after its start by which a generation has a name; a command may take 5


def unnamed(services: Mapping[str, ServiceStatus], config: Config) -> Iterator[Finding]:
    """Find releases that run, and whose name could not be found out."""
    for service in config.services:
        running = services.get(service.name)
        if service.release is None or running is None or running.release:
            continue
        ages = [w.age for w in running.workers if w.generation == running.generation]
        if max(ages, default=0.0) > _LATEST:
            yield Check.RELEASE_UNNAMED.found(
                subject=f"service.{service.name}",
                what=f"what generation {running.generation} of {service.name} is called could not "
                "be found out",
                why="it has no name in status, history and events",
                fix="sockmgr events has the reason: release has no name",
            )
