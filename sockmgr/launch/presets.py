"""A command made fit to be a worker on sockets that are not its own. Runs nothing.

What a preset adds stands right behind the program's name, so that what the user wrote comes later
and wins.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from sockmgr.config import servers
from sockmgr.config.config import ServiceConfig
from sockmgr.launch import additions, launchers
from sockmgr.launch.call import Call, recognise
from sockmgr.launch.launchers import Launch, Way
from sockmgr.launch.situation import Situation

_LOSES = {
    Way.CLOSES: "it closes the descriptors of what it starts, so no listener gets there; call the "
    "program by its own path",
    Way.LEAVES: "it ends at once and leaves what it starts to itself; leave it out, each worker "
    "leads a process group of its own anyway",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A command made fit to be a worker, and what is known of how it ends.

    `env` are variables to set unless the config does; `warnings` say which arguments lose requests.
    `is_told` is false if LISTEN_FDS does not reach the program, or another pid than the worker's.
    """

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    stop_signal: int = signal.SIGTERM
    clean_exits: frozenset[int] = frozenset({0})
    broken_exits: frozenset[int] = frozenset()
    warnings: tuple[str, ...] = ()
    is_told: bool = True


def fit(argv: tuple[str, ...], situation: Situation, *, preset: str = "auto") -> Fit:
    """Return `argv` fitted by the preset for its program, or by the one named; "none" for none."""
    launch = launchers.read(argv)
    server = servers.named(launch.name) if preset == "auto" else servers.KNOWN.get(preset)
    if server is None:
        return Fit(
            name="none",
            argv=argv,
            is_told=launch.is_told,
            warnings=_of_launcher(launch, situation) if preset == "auto" else (),
        )
    call = Call(server, launch)
    added = additions.PRESETS.get(server.name, additions.nothing)(call, situation)
    return Fit(
        name=server.name,
        argv=launch.argv(added.extra, instead=added.instead),
        env=added.env,
        stop_signal=server.stop_signal,
        clean_exits=server.clean_exits,
        broken_exits=server.broken_exits,
        warnings=(
            *_of_launcher(launch, situation),
            *(f"{server.name} {text}" for applies, text in added.warnings if applies),
        ),
        is_told=launch.is_told,
    )


def stop_signal(service: ServiceConfig) -> int:
    """Return what asks a worker of the service to finish."""
    if service.stop_signal is not None:
        return service.stop_signal
    call = recognise(service.command) if service.preset == "auto" else None
    server = call.server if call else servers.KNOWN.get(service.preset)
    return server.stop_signal if server else servers.TERM


def _of_launcher(launch: Launch, situation: Situation) -> tuple[str, ...]:
    if not situation.listen or launch.way not in _LOSES:
        return ()
    return (f"{launch.by}: {_LOSES[launch.way]}",)
