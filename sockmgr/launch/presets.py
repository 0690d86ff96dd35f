"""Fit a command to be a worker on sockets that it did not open itself. Runs nothing.

A preset adds its words right behind the program's name, so that the words of the user come later
and win.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sockmgr.config import servers
from sockmgr.config.config import ServiceConfig
from sockmgr.config.servers import Server
from sockmgr.config.settings import LIMITS
from sockmgr.config.spec import Accept, Listen
from sockmgr.errors import ConfigError
from sockmgr.launch import additions, launchers, own_config
from sockmgr.launch.call import Call, recognise
from sockmgr.launch.launchers import CommandLine, Way
from sockmgr.launch.situation import Situation

_NONE = Server(name="none")
_LOSES = {
    Way.CLOSES: "it closes the descriptors of what it starts, so no listener gets there; call the "
    "program by its own path",
    Way.LEAVES: "it ends at once and leaves what it starts to itself; leave it out, each worker "
    "leads a process group of its own anyway",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A command fitted to be a worker of its `server`.

    `env` are variables to set unless the config sets them. `warnings` say which arguments lose
    requests. `passes_listen_fds` is whether LISTEN_FDS reaches the program, with its own pid in
    LISTEN_PID.
    `moves` is that of the Spec.
    """

    server: Server
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    passes_listen_fds: bool = True
    moves: str = ""


def fit(argv: tuple[str, ...], situation: Situation, *, preset: str = "auto") -> Fit:
    """Return `argv` fitted by a preset: "auto" is that of its program, "none" changes nothing.

    Raises ConfigError if the server cannot serve on a listener that it did not open.
    """
    launch = launchers.read(argv)
    server = (
        servers.named(launch.name, launch.args) if preset == "auto" else servers.KNOWN.get(preset)
    )
    if server is None:
        return Fit(
            server=_NONE,
            argv=argv,
            passes_listen_fds=launch.passes_listen_fds,
            warnings=_of_launcher(launch, situation) if preset == "auto" else (),
        )
    if server.refused and situation.listen:
        raise ConfigError(
            f"service.{situation.service}.command: {server.name} {server.refused}",
            means="it would get no connection of this service's listeners",
            do=server.instead,
        )
    call = Call(server, launch)
    added = additions.PRESETS.get(server.name, additions.nothing)(call, situation)
    return Fit(
        server=server,
        argv=launch.argv(added.extra, instead=added.instead),
        env=added.env,
        warnings=(
            *_of_launcher(launch, situation),
            *(f"{server.name} {text}" for applies, text in added.warnings if applies),
            *(f"{server.name} {flag}: {why}" for flag, why in own_config.flags(server, call.args)),
            *_of_server(server, situation),
        ),
        passes_listen_fds=launch.passes_listen_fds,
    )


def stop_signal(service: ServiceConfig) -> int:
    if service.stop_signal is not None:
        return service.stop_signal
    call = recognise(service.command) if service.preset == "auto" else None
    server = call.server if call else servers.KNOWN.get(service.preset)
    return server.stop_signal if server else servers.TERM


def limits(service: ServiceConfig) -> list[str]:
    """Return the limits of a service with a command, at which its workers are recycled."""
    return [key for key in LIMITS if service.command and getattr(service, key)]


def losses(service: ServiceConfig, listen: Collection[Listen], fit: Fit) -> Iterator[str]:
    """Yield what its limits cost a service whose command is fitted like this.

    The manager starts the successor first. But who takes part in one queue and is told to stop may
    have accepted a client just then; only some servers answer that one as well.
    """
    if not (found := limits(service)):
        return
    streams = [each.address.traits for each in listen if each.address.traits.is_stream]
    answers = fit.server.answers_all or additions.UVICORN_LAUNCHER in fit.argv
    if streams and service.accept is Accept.SHARED and not answers:
        own = 'set accept = "per-worker"'
        if not all(traits.is_internet for traits in streams):
            own = "use an app, or a server that does"
        yield (
            f"{found[0]} on a shared queue: one worker that is replaced may have accepted a "
            f"client whom it does not answer any more; {own}"
        )
    for word in launchers.read(service.command).args:
        if (flag := word.partition("=")[0]) in fit.server.recycling:
            why = "it ends by itself, before its successor is there"
            yield f"{fit.server.name} {flag}: {why}; remove it, {found[0]} does without"


def _of_server(server: Server, situation: Situation) -> tuple[str, ...]:
    """Return what a server loses whatever its application does."""
    if not situation.listen or not server.loses or server.in_source:
        return ()
    return (f"{server.name}: told to stop, it loses {server.loses}; {server.instead}",)


def _of_launcher(launch: CommandLine, situation: Situation) -> tuple[str, ...]:
    if not situation.listen or launch.way not in _LOSES:
        return ()
    return (f"{launch.by}: {_LOSES[launch.way]}",)
