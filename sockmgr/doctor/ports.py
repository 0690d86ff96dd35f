"""Find out who has the port that a new worker could not open."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from sockmgr.api.types import Status
from sockmgr.doctor import processes
from sockmgr.doctor.finding import Check, Finding
from sockmgr.kernel import procfs
from sockmgr.kernel.listening import listening

_TAKEN = re.compile(r"address (?:is )?already in use|EADDRINUSE", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])(?:[\d.]+:|\S*:)?(\d{2,5})(?![\w.])")


def taken(service: str, lines: Sequence[str], status: Status) -> Iterator[Finding]:
    """Find in the last words of a service that a port was taken, and who has it."""
    said = [line for line in lines if _TAKEN.search(line)]
    if not said:
        return
    ports: dict[int, int] = {}
    with contextlib.suppress(OSError):  # doctor/machine has a finding for that
        own = procfs.sockets_of(status.manager.pid)
        ports = {one.inode: one.port for one in listening() if one.inode not in own}
    named = {int(number) for line in said for number in _NUMBER.findall(line)} & {*ports.values()}
    holders = _of_workers(status, ports)
    if not named & {port for port, _ in holders}:
        holders = [*_of_others(ports, named)] if named else holders
    who = [f"{name} has port {port}" for port, name in holders if not named or port in named]
    yield Check.PORT_TAKEN.found(
        subject=f"service.{service}",
        what=f"a worker of {service} could not open a port that is taken: "
        f"{', '.join(sorted(set(who))) or 'nobody that can be seen from here has it now'}",
        why="an old worker has its port until it ends, and the new one starts before that: each "
        "start fails, and each reload aborts",
        fix="make it a listener of the config, have the kernel choose the port (0), or set "
        "rollout.exclusive",
    )


def _of_workers(status: Status, ports: dict[int, int]) -> list[tuple[int, str]]:
    return [
        (ports[inode], worker.name(name))
        for name, service in status.services.items()
        for worker in service.workers
        for pid in ([worker.pid, *procfs.descendants(worker.pid)] if worker.pid else [])
        for inode in procfs.sockets_of(pid) & ports.keys()
    ]


def _of_others(ports: dict[int, int], named: set[int]) -> Iterator[tuple[int, str]]:
    """Look at every process: one look, and only when the port is known and no worker has it."""
    for each in procfs.everybody():
        for inode in procfs.sockets_of(each.pid) & ports.keys():
            if ports[inode] in named:
                yield ports[inode], f"{processes.program(each.pid)} (pid {each.pid})"
