"""Remarks about a config that is correct: what it takes for granted. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sockmgr.config import placeholder, servers
from sockmgr.config.config import ServiceConfig
from sockmgr.config.spec import Accept, Delay
from sockmgr.launch import launchers
from sockmgr.launch.launchers import Way


def of(service: ServiceConfig) -> Iterator[str]:
    """Yield each remark about a service, a sentence or two."""
    if service.command:
        yield from _unknown(service)
    if isinstance(service.ready, Delay) and not service.listen:
        yield (
            f"service.{service.name}: without a listener nothing shows that it works, so ready is "
            f"a guess: it counts as ready after {service.ready.seconds:g} s, and if it ends within "
            f"{service.rollout.probation:g} s more, a reload is taken back; one that fails later "
            'replaces what worked. A program that says so itself is better: ready = "notify"'
        )


def _unknown(service: ServiceConfig) -> Iterator[str]:
    """Yield how a program that is no known server gets its sockets."""
    named = placeholder.names(service.command)
    if not service.listen or named or service.accept is Accept.DISPATCH:
        return
    launch = launchers.read(service.command)
    if launch.way in (Way.CLOSES, Way.LEAVES):  # the preset has a warning for these
        return
    server = servers.named(launch.name, launch.args) or servers.KNOWN.get(service.preset)
    in_source = server.in_source if server and service.preset != "none" else ""
    if server and not in_source and (service.preset != "none" or server.takes_listen_fds):
        return
    last = placeholder.FIRST_FD + len(service.listen) - 1
    fds = f"descriptor {last}" if len(service.listen) == 1 else f"descriptors 3 to {last}"
    pid = service.listen_pid and launch.passes_listen_fds
    why = f" ({launch.by} gives it another pid)" if launch.way is Way.CHILD else ""
    what = "is not a server that sockmgr knows" if server is None else 'has preset = "none"'
    if in_source:
        what = f"serves there only if its source says so, as by `{in_source}`"
    yield (
        f"service.{service.name}.command: {launch.name} {what}, and no listener is named in it: it "
        f"gets {fds}, told by LISTEN_FDS {'and' if pid else 'without'} LISTEN_PID{why}. A "
        "program that looks at neither opens a port of its own and never gets ready: name the "
        f"descriptor in the command, {{{service.listen[0]}}}"
    )
