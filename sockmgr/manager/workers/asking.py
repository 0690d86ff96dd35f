"""Whom the probes of a worker ask: which of its listeners, and how."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from socket import socket

from sockmgr.api.types import WarmUp
from sockmgr.config.probe import Probe, warm_up_like
from sockmgr.config.spec import Accept, Spec
from sockmgr.errors import ListenError
from sockmgr.kernel.spawn import uid_of
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.probes.door import Door
from sockmgr.manager.probes.prober import Prober
from sockmgr.manager.probes.warm_up import warm_up
from sockmgr.manager.workers import private_socket
from sockmgr.manager.workers.context import Assignment

ReachListener = Callable[[Listener], Awaitable[socket]]


def prober(whom: Assignment, probe: Probe) -> Prober:
    """Return what asks a worker by `probe`."""
    spec = whom.command.spec
    name, listener = _asked(spec, probe, whom.listeners)
    return Prober(probe, name, partial(whom.reach, listener), tls=spec.tls)


async def warmed_up(whom: Assignment, limit: float) -> WarmUp:
    """Warm a worker up as its spec says, for at most `limit` seconds."""
    spec = whom.command.spec
    request, rollout = warm_up_like(spec.ready), spec.rollout
    _, listener = _asked(spec, request, whom.listeners)
    return await warm_up(
        request, rollout.warmup, rollout.warmup_requests, partial(whom.reach, listener),
        tls=spec.tls, limit=limit,
    )  # fmt: skip


def door(spec: Spec, listeners: Sequence[Listener], reach: ReachListener) -> Door | None:
    """Open a way to a worker for commands of its user; None if it has no listener to come by."""
    for listen, listener in zip(spec.listen, listeners, strict=True):
        is_alone = spec.accept is Accept.DISPATCH or not listener.why_unreachable
        if is_alone and not listen.address.traits.is_datagram:
            users = {0, os.geteuid(), uid_of(spec.user)}
            with contextlib.suppress(OSError):  # no port or descriptor is left: it goes without
                return Door(partial(reach, listener), users, tls=spec.tls)
    return None


def check(spec: Spec, listeners: Sequence[Listener]) -> None:
    """Raise ListenError if a probe of this spec could reach other workers as well."""
    if spec.accept is Accept.DISPATCH:
        return
    for key, probe in spec.probes.items():
        name, listener = _asked(spec, probe, listeners)
        # A private socket is for the time before the worker serves.
        is_private = private_socket.needed(spec, (listener,)) and key != "healthy"
        if listener.why_unreachable and not is_private:
            raise ListenError(
                f"service.{spec.service}.{key} cannot ask the new workers alone on {name}: "
                f"{listener.why_unreachable}",
                do='add accept = "dispatch" for an app, or use { exec = ["COMMAND"] } as `ready`',
            )


def _asked(spec: Spec, probe: Probe, listeners: Sequence[Listener]) -> tuple[str, Listener]:
    asked = spec.asked(probe)
    return asked.name, listeners[spec.listen.index(asked)]
