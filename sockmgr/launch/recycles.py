"""What a command loses whose workers are recycled for a limit, or end by themselves too. Pure.

The manager starts the successor first. But who takes part in one queue and is told to stop may have
accepted a client just then; only some servers answer that one as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sockmgr.config import servers
from sockmgr.config.config import ServiceConfig
from sockmgr.config.settings import LIMITS
from sockmgr.config.spec import Accept, Listen
from sockmgr.launch import launchers
from sockmgr.launch.additions import UVICORN_LAUNCHER
from sockmgr.launch.presets import Fit


def limits(service: ServiceConfig) -> list[str]:
    """Return the limits of a service with a command."""
    return [key for key in LIMITS if service.command and getattr(service, key)]


def losses(service: ServiceConfig, listen: Collection[Listen], fit: Fit) -> Iterator[str]:
    """Yield what its limits cost a service whose command is fitted like this."""
    if not (found := limits(service)):
        return
    streams = [each.address.traits for each in listen if each.address.traits.is_stream]
    server = servers.KNOWN.get(fit.name)
    answers = bool(server and server.answers_all) or UVICORN_LAUNCHER in fit.argv
    if streams and service.accept is Accept.SHARED and not answers:
        own = 'set accept = "per-worker"'
        if not all(traits.is_internet for traits in streams):
            own = "use an app, or a server that does"
        yield (
            f"{found[0]} on a shared queue: one worker that is replaced may have accepted a "
            f"client whom it does not answer any more; {own}"
        )
    for word in launchers.read(service.command).args:
        if server and (flag := word.partition("=")[0]) in server.recycling:
            why = "it ends by itself, before its successor is there"
            yield f"{fit.name} {flag}: {why}; remove it, {found[0]} does without"
