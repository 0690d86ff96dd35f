"""What a config means in development, and the stand-in for a service whose code is broken. Pure.

The same file serves in production, so its keys about workers, drains and rollouts are meant for
production, and are replaced here. Options of `sockmgr dev` itself are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from msgspec.structs import replace

from sockmgr.config import servers
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.settings import LIMITS
from sockmgr.config.spec import SURGE_ALL, Accepting, Listen

# Seconds, all four:
DRAIN_TIMEOUT = 2.0
KEEP_ALIVE = 0.5  # an app waits this long for the next request of a browser before it ends
PROBATION = 0.1  # not 0: code that dies at once must not replace code that works
STAND_IN_DRAIN = 1.0


def for_development(config: Config, *, typed: Collection[str], env: Mapping[str, str]) -> Config:
    """Return `config` with one worker a service that is quick to replace.

    The keys in `typed` are kept. `env` has variables for all workers; those of the config have
    precedence.
    """
    services = (_for_development(service, typed, env) for service in config.services)
    return replace(config, services=tuple(services))


def _for_development(
    service: ServiceConfig, typed: Collection[str], env: Mapping[str, str]
) -> ServiceConfig:
    ours = {
        "workers": 1,
        "drain_timeout": min(service.drain_timeout, DRAIN_TIMEOUT),
        **dict.fromkeys(LIMITS),
        "when_down": None,  # code may be broken for as long as it takes to mend it
        "hang_timeout": 0.0,  # a debugger stops the event loop as a hang does
        "healthy": None,  # and answers no probe
    }
    rollout = {
        "surge": SURGE_ALL,
        "probation": PROBATION,
        "max_failed_starts": 1,
        "canary": None,  # who has saved wants to see all of it, and now
        "warmup": (),
    }
    return replace(
        service,
        env=tuple((dict(env) | dict(service.env)).items()),
        http=dataclasses.replace(service.http, keep_alive=min(service.http.keep_alive, KEEP_ALIVE)),
        rollout=replace(
            service.rollout, **{key: rollout[key] for key in rollout if key not in typed}
        ),
        **{key: ours[key] for key in ours if key not in typed},
    )


def shows_errors(
    service: ServiceConfig, listens: Mapping[str, Listen], wanted: bool | None, preset: str
) -> bool:
    """Return whether requests for `service` are to be answered with its error.

    `wanted` is the key `error_page`. `preset` is the name of the known server that the command of
    the service runs, "" if none.
    """
    streams = [listens[name].address.traits.is_stream for name in service.listen]
    if not streams or not all(streams):
        return False
    http = (
        bool(service.app)
        or (preset in servers.KNOWN and servers.KNOWN[preset].work is servers.Work.HTTP)
        or any("http" in name for name in service.listen)
    )
    return http if wanted is None else wanted


def stand_in(
    service: ServiceConfig, command: tuple[str, ...], env: Mapping[str, str]
) -> ServiceConfig:
    """Return the service that answers in place of `service` on its listeners."""
    return ServiceConfig(
        name=service.name,
        command=command,
        listen=service.listen,
        env=tuple(env.items()),
        ready=Accepting(),
        ready_timeout=10.0,
        drain_timeout=STAND_IN_DRAIN,
        preset="none",
        rollout=replace(
            service.rollout, surge=SURGE_ALL, probation=0.0, max_failed_starts=1, exclusive=False
        ),
    )
