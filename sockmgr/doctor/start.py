"""Look at what would hinder a manager that started from here now: addresses and descriptors.

Occupies no address: a socket that is bound to try one never listens, and is closed at once.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from sockmgr.client.finding import why_no_control
from sockmgr.client.places import SOCKET_VARIABLE
from sockmgr.config.config import Config
from sockmgr.config.spec import Listen, Scheme
from sockmgr.doctor import unix_sockets
from sockmgr.doctor.finding import Check, Finding
from sockmgr.doctor.machine import ABSENT, refusal
from sockmgr.kernel import processors
from sockmgr.kernel.listening import listening_names

_OWN_FILES = 40  # about as many descriptors a manager has without listeners and workers


def examine(config: Config, control: str | None) -> Iterator[Finding]:
    """Look at the limits of this process, at the addresses of all listeners, and at `control`."""
    if nowhere := why_no_control(control):
        yield Check.NO_CONTROL.found(
            subject="control socket",
            what=f"there is no directory for the control socket: {nowhere}",
            why="a manager does not start where nobody could reload or stop it",
            fix=f"name a path with --control or {SOCKET_VARIABLE}, in a directory of yours alone",
        )
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # a manager raises the soft one to it
    yield from open_files(config, hard, "a manager started here", Check.OPEN_FILES)
    for listen in config.listen:
        if why := _obstacle(listen):
            what, fix = why
            yield Check.CANNOT_LISTEN.found(
                subject=f"listen.{listen.name}",
                what=f"cannot listen on {listen.address}: {what}",
                why="a manager does not start without each of its listeners",
                fix=fix,
            )
        else:
            yield from unix_sockets.private([listen], ahead=True)


def open_files(config: Config, limit: int, whose: str, check: Check) -> Iterator[Finding]:
    """Compare a limit of descriptors with what a rollout of all services needs at least."""
    needed = _OWN_FILES
    for service in config.services:
        # A pidfd and a pipe for each worker of the generation that serves and of the next.
        workers = service.workers or processors.available()
        needed += 2 * (workers + service.rollout.surge.above(workers))
        needed += len(service.listen) * (3 + service.rollout.max_draining)  # queues
    if limit != resource.RLIM_INFINITY and limit < needed:
        yield check.found(
            subject="RLIMIT_NOFILE",
            what=f"{whose} may have {limit} descriptors, and a rollout takes {needed}",
            why="workers cannot be started when they run out, so a rollout is aborted",
            fix=f"LimitNOFILE={max(65536, 2 * needed)} in the unit, or `ulimit -n`",
        )


def _obstacle(listen: Listen) -> tuple[str, str] | None:
    """Return what keeps a manager from listening at an address, and the fix; leave no trace."""
    match listen.address.scheme:
        case Scheme.TCP | Scheme.UDP:
            return _port_obstacle(listen)
        case Scheme.UNIX:
            return _path_obstacle(listen)
        case Scheme.ABSTRACT:
            taken = f"@{listen.address.path}" in listening_names()
            return _taken(listen) if taken else None
        case Scheme.FD:
            return None


def _taken(listen: Listen, which: str = "") -> tuple[str, str]:
    what = f'another program does ("{listen.address.traits.seen_by}{which}" shows it)'
    return what, (
        "stop it; if it is the manager of this config, name it with --control; or change "
        f"listen.{listen.name}"
    )


def _port_obstacle(listen: Listen) -> tuple[str, str] | None:
    address = listen.address
    error = refusal(address, address.port) if address.port else None
    if error is None or error.errno in ABSENT:
        return None
    match error.errno:
        case errno.EADDRINUSE:
            return _taken(listen, f" sport = :{address.port}")
        case errno.EACCES:
            return "this port is privileged", (
                "take the socket from systemd (sockmgr units), grant CAP_NET_BIND_SERVICE, or "
                "choose a higher port"
            )
        case _:
            why = (error.strerror or str(error)).lower()
            return why, f"write an address of this host in listen.{listen.name}"


def _path_obstacle(listen: Listen) -> tuple[str, str] | None:
    path = Path(listen.address.path)
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}", "create it (socket units do), or correct it"
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        return f"this user may not write to {path.parent}", "let it, or choose another directory"
    if path.exists() and not path.is_socket():
        return "the path exists and is not a socket", "remove it, or choose another path"
    if str(path) in listening_names():
        return _taken(listen, f" src {path}")
    return None
