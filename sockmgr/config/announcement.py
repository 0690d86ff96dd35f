"""Announce its listeners to a worker, by its arguments or its environment. Pure.

A Spec has everything for that except the real addresses of the listeners, with their ports.
"""

from __future__ import annotations

from collections.abc import Mapping

from sockmgr.config import placeholder
from sockmgr.config.placeholder import FIRST_FD
from sockmgr.config.spec import Accept, Scheme, Spec, report_pace

PRIVATE = "sockmgr-probe"  # what LISTEN_FDNAMES calls the listener that is for the manager alone


def arguments(spec: Spec, slot: int) -> tuple[str, ...]:
    """Return the command with each `{name}` replaced by the fd of that listener in the worker."""
    names = (listen.name for listen in spec.listen)
    fds = {name: fd for fd, name in enumerate(names, FIRST_FD)}
    return placeholder.fill(spec.argv, fds, slot)


def who(spec: Spec, generation: int, slot: int) -> dict[str, str]:
    """Return the variables that tell a worker who it is, and those of its slot."""
    own = {name: placeholder.in_slot(text, slot) for name, text in spec.slot_env}
    return own | {
        "SOCKMGR_SERVICE": spec.service,
        "SOCKMGR_GENERATION": str(generation),
        "SOCKMGR_SLOT": str(slot),
        "SOCKMGR_WORKER": f"{spec.service}@{generation}.{slot}",
    }


def variables(spec: Spec, addresses: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that announce the listeners, except LISTEN_PID, which kernel/spawn adds.

    A command that names a listener gets none: Gunicorn dies of EBADF if a descriptor is announced
    in both ways. `addresses` are the real addresses, such as `tcp://127.0.0.1:8000`, by the name of
    the listener.
    """
    names = tuple(listen.name for listen in spec.listen)
    if spec.accept is Accept.DISPATCH:
        return {
            "SOCKMGR_DISPATCH_FD": str(FIRST_FD),
            "SOCKMGR_DISPATCH_NAMES": ":".join(names),
            "SOCKMGR_DISPATCH_PACE": str(report_pace(spec.policy, spec.max_connections)),
        }
    if not takes_listen_fds(spec.argv, names):
        return {}
    fds = range(FIRST_FD, FIRST_FD + len(names))
    env = {
        "LISTEN_FDS": str(len(names)),
        "LISTEN_FDNAMES": ":".join(names),
        "EINHORN_FD_COUNT": str(len(names)),
        **{f"EINHORN_FD_{index}": str(fd) for index, fd in enumerate(fds)},
    }
    ports = [
        f"{addresses[listen.name].partition('://')[2]}={fd}"
        for listen, fd in zip(spec.listen, fds, strict=True)
        if addresses[listen.name].startswith((f"{Scheme.TCP}://", f"{Scheme.UNIX}://"))
    ]
    return env | ({"SERVER_STARTER_PORT": ";".join(ports)} if ports else {})


def private(spec: Spec, fd: int) -> dict[str, str]:
    """Return the variables that announce one more listener, for the manager alone, as `fd`.

    A worker that goes by LISTEN_FDS has it right behind its other listeners.
    """
    names = tuple(listen.name for listen in spec.listen)
    if not takes_listen_fds(spec.argv, names):
        return {"SOCKMGR_PROBE_FD": str(fd)}
    more = (*names, PRIVATE)
    return {"LISTEN_FDS": str(len(more)), "LISTEN_FDNAMES": ":".join(more)}


def takes_listen_fds(argv: tuple[str, ...], listen: tuple[str, ...]) -> bool:
    """Return whether a command gets its listeners by LISTEN_FDS, because it names none of them."""
    return bool(listen) and not placeholder.names(argv)
