"""Look at a manager: is there one, can it be reached, and was it started in the right way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sockmgr.api.types import ListenerStatus
from sockmgr.client.elsewhere import Elsewhere
from sockmgr.config.config import Config
from sockmgr.doctor import processes
from sockmgr.doctor.finding import Check, Finding
from sockmgr.errors import SockmgrError
from sockmgr.kernel import procfs
from sockmgr.kernel.listening import listening_names
from sockmgr.systemd.units import asks_workers


def examine(pid: int) -> Iterator[Finding]:
    """Look at a manager whose process is visible under this pid."""
    # Imported late, because it imports asyncio, which would slow down shell completion.
    from sockmgr.systemd.passed import START_DIRECTLY, passed_to_another  # noqa: PLC0415

    environ = processes.environ(pid)
    astray = passed_to_another(environ, pid)
    # If that process is no ancestor, the manager was started from a shell with an old environment.
    if astray and int(environ["LISTEN_PID"]) in procfs.ancestors(pid):
        yield Check.SOCKETS_ASTRAY.found(
            subject="manager",
            what=astray,
            why="it does not use them: who connects to an address that only systemd has waits for "
            "ever, and what the manager tells systemd is not heard",
            fix=START_DIRECTLY,
        )


def unasked(config: Config, listeners: Mapping[str, ListenerStatus]) -> Iterator[Finding]:
    """Find probes that a running manager cannot lead to the workers of a config."""
    listens = config.listens()
    for service in filter(asks_workers, config.services):
        for listen in service.listen:
            found, traits = listeners.get(listen), listens[listen].address.traits
            if found and found.unreachable and traits.is_internet and traits.is_stream:
                yield Check.NO_WAY_TO_WORKERS.found(
                    subject=f"service.{service.name}",
                    what=f"the manager cannot ask the workers of {service.name} alone on {listen}: "
                    f"{found.unreachable}",
                    why="a reload with a probe by HTTP or TCP is refused, and a command as `ready` "
                    "has no SOCKMGR_PROBE_URL",
                    fix="under systemd: sockmgr units --install, systemctl daemon-reload, and "
                    "restart the service, whose workers serve on; elsewhere give it CAP_BPF",
                )


def silent(error: SockmgrError) -> Finding:
    return Check.MANAGER_SILENT.found(
        subject="manager",
        what=error.what,
        why="it cannot be told anything, and replaces no worker; the workers go on serving",
        fix="see its log, and `cat /proc/PID/stack`; under systemd, WatchdogSec= ends it and "
        "starts the next",
    )


def unreachable(one: Elsewhere) -> Finding:
    if one.uid is None:
        check, why = Check.MANAGER_UNREACHABLE, "nobody can reload, stop or ask it"
    else:
        check, why = Check.MANAGER_ELSEWHERE, "its workers are not looked at"
    return check.found(subject=str(one.path), what=one.what, why=why, fix=one.do)


def gone(keeper: str) -> Finding:
    """Return the finding for a manager that died; its keeper waits at the path `keeper`."""
    return Check.MANAGER_GONE.found(
        subject=keeper,
        what=f"no manager is there, and {keeper} keeps what one had that died",
        why="its workers serve on, but none that dies is replaced, and nothing can be reloaded",
        fix="start the manager again (sockmgr run): it takes over the sockets and the workers",
    )


def keeper(controls: Iterable[Path]) -> str:
    """Return the path of a keeper for a manager with one of these control sockets, or ""."""
    listening = listening_names()
    paths = (str(control.absolute().with_suffix(".keeper")) for control in controls)
    return next((path for path in paths if path in listening), "")


def why_hidden(pid: int, peer: int) -> str:
    """Return why the processes of a manager cannot be looked at, "" if they can.

    `pid` is its pid as the manager itself reports it, `peer` as the kernel shows it to us.
    """
    if peer != pid:
        there = f": nsenter -a -t {peer} sockmgr doctor" if peer else ""
        return f"they are in another PID namespace, and can be seen from there{there}"
    if processes.may_look_into(pid):
        return ""
    if os.geteuid() == 0:
        return "this root may not (CAP_SYS_PTRACE is missing, or hidepid= hides them)"
    return "run this as its user, or as root"
