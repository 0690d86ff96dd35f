"""What a config takes for granted, and its reader should know: no faults. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sockmgr.config import placeholder, servers
from sockmgr.config.config import ServiceConfig
from sockmgr.config.spec import Accept, Delay
from sockmgr.launch import launchers
from sockmgr.launch.launchers import Way


def of(service: ServiceConfig) -> Iterator[str]:
    """Yield a sentence or two for each."""
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
    """Say how a program gets its sockets of which nothing is known."""
    named = placeholder.names(service.command)
    if not service.listen or named or service.accept is Accept.DISPATCH:
        return
    launch = launchers.read(service.command)
    if launch.way in (Way.CLOSES, Way.LEAVES):  # of which a warning is given
        return
    server = servers.named(launch.name) or servers.KNOWN.get(service.preset)
    if server and (service.preset != "none" or server.takes_listen_fds):
        return
    last = placeholder.FIRST_FD + len(service.listen) - 1
    fds = f"descriptor {last}" if len(service.listen) == 1 else f"descriptors 3 to {last}"
    pid = service.listen_pid and launch.is_told
    why = f" ({launch.by} gives it another pid)" if launch.way is Way.CHILD else ""
    what = "is not a server that sockmgr knows" if server is None else 'has preset = "none"'
    yield (
        f"service.{service.name}.command: {launch.name} {what}, and no listener is named in it: it "
        f"gets {fds}, told by LISTEN_FDS {'and' if pid else 'without'} LISTEN_PID{why}. A "
        "program that looks at neither opens a port of its own and never gets ready: name the "
        f"descriptor in the command, {{{service.listen[0]}}}"
    )
