"""What a config means in development, and the stand-in for a service whose code is broken. Pure.

The same file serves in production, so its keys about workers, drains and rollouts are meant for
there and are replaced here. What was typed for `sockmgr dev` itself stands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from sockmgr.config import servers
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import SURGE_ALL, Accepting, Listen, Scheme

DRAIN_TIMEOUT = 2.0
KEEP_ALIVE = 0.5  # of an app, which waits that long for a browser before it ends
PROBATION = 0.1  # code that dies at once must not replace code that works
STREAMS = (Scheme.TCP, Scheme.UNIX, Scheme.ABSTRACT)
STAND_IN_DRAIN = 1.0


def for_development(config: Config, *, typed: Collection[str], env: Mapping[str, str]) -> Config:
    """Return `config` with one worker a service, quick to replace; `typed` keys are kept.

    `env` are variables for all workers, which the config's own win over.
    """
    services = (_for_development(service, typed, env) for service in config.services)
    return replace(config, services=tuple(services))


def _for_development(
    service: ServiceConfig, typed: Collection[str], env: Mapping[str, str]
) -> ServiceConfig:
    ours = {
        "workers": 1,
        "drain_timeout": min(service.drain_timeout, DRAIN_TIMEOUT),
        "max_age": None,
        "hang_timeout": 0.0,  # a debugger holds the event loop, too
    }
    rollout = {"surge": SURGE_ALL, "probation": PROBATION, "max_failed_starts": 1}
    return replace(
        service,
        env=tuple((dict(env) | dict(service.env)).items()),
        http=replace(service.http, keep_alive=min(service.http.keep_alive, KEEP_ALIVE)),
        rollout=replace(
            service.rollout, **{key: rollout[key] for key in rollout if key not in typed}
        ),
        **{key: ours[key] for key in ours if key not in typed},
    )


def shows_errors(
    service: ServiceConfig, listens: Mapping[str, Listen], wanted: bool | None, preset: str
) -> bool:
    """Tell whether requests for `service` are to be answered with its error.

    `preset` is the name of the server that its command runs, as far as that is known.
    """
    schemes = {listens[name].address.scheme for name in service.listen}
    if not schemes or not schemes <= set(STREAMS):
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
