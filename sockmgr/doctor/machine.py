"""Look at this machine: does the kernel permit what a manager needs, do its settings fit a config.

Each facility is tried, because a seccomp filter, a container or a missing capability may forbid
what the kernel has.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Accepting, Address, Listen
from sockmgr.doctor import resources
from sockmgr.doctor.finding import Check, Finding
from sockmgr.kernel import handshakes, processors, queues
from sockmgr.kernel.accounts import account, user_number
from sockmgr.kernel.steering import round_robin
from sockmgr.kernel.steering.pool import Pool

ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # this host may get the address later
_SYS = Path("/proc/sys")


def examine(config: Config | None) -> Iterator[Finding]:
    """Look at what every manager needs here, and at what this config needs."""
    listens = config.listen if config else ()
    yield from _pidfd()
    yield from _steering()
    yield from _sock_diag()
    yield from _backlog(listens)
    yield from _abort_on_overflow(listens)
    yield from _outgoing_port(listens)
    yield from _absent(listens)
    if config:
        yield from _round_robin(config)
        yield from _visibility(config)
        yield from resources.examine(config.services, Check.NO_CONTROLLER)


# --- The kernel ----------------------------------------------------------------------------------


def _pidfd() -> Iterator[Finding]:
    try:
        pidfd = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(pidfd, 0)
        finally:
            os.close(pidfd)
    except OSError as error:
        yield Check.PIDFD.found(
            subject="kernel",
            what=f"pidfd_open(2) and pidfd_send_signal(2) are refused: {error.strerror}",
            why="a manager cannot start any worker: it would not hear of its end",
            fix="allow them in the seccomp filter of the container or unit (systemd's "
            "@system-service has them)",
        )


def _steering() -> Iterator[Finding]:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            Pool([sock], fed={0: 1})
        except OSError as error:
            yield Check.STEERING.found(
                subject="kernel",
                what=f"SO_ATTACH_REUSEPORT_CBPF is refused: {error.strerror}",
                why="cut-overs overlap: a worker that is told to stop may have accepted a "
                "connection that it then closes unread",
                fix="allow this option of setsockopt(2) in the seccomp filter of the container",
            )


def _round_robin(config: Config) -> Iterator[Finding]:
    if any(map(_feeds_several, config.services)) and (refusal := round_robin.refusal()):
        yield Check.ROUND_ROBIN.found(
            subject="kernel",
            what=f"queues cannot take turns: {refusal.reason}",
            why="when several queues of a listener are fed, the next one is chosen at random, so "
            "that some workers get more connections than others; none is lost",
            fix=refusal.do,
        )


def _feeds_several(service: ServiceConfig) -> bool:
    """Return whether several queues of a listener of this service may be fed at a time."""
    workers = service.workers or processors.available()
    portions = service.rollout.surge.above(workers) < workers
    return bool(service.listen) and portions and not service.rollout.exclusive


def _sock_diag() -> Iterator[Finding]:
    try:
        handshakes.half_open(socket.AF_INET)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(b"")  # the kernel chooses an abstract name
            sock.listen(1)
            queues.backlog(sock)
    except OSError as error:
        yield Check.SOCK_DIAG.found(
            subject="kernel",
            what=f"sock_diag(7) is refused: {error.strerror}",
            why="half-open connections are not seen, so old workers drain 10 s later; queues of "
            "unix listeners are not seen at all",
            fix="allow AF_NETLINK (RestrictAddressFamilies=, seccomp), and have CONFIG_INET_DIAG "
            "and CONFIG_UNIX_DIAG",
        )


def _visibility(config: Config) -> Iterator[Finding]:
    users = {s.user for s in config.services if isinstance(s.ready, Accepting) and s.listen}
    for user in sorted(users):
        try:
            seen = _sees(user)
        except PermissionError:
            yield Check.BECOME_USER.found(
                subject=user,
                what=f"root may not start a process as {user} here",
                why="no worker with this user starts",
                fix="give the manager CAP_SETUID and CAP_SETGID (CapabilityBoundingSet=, or the "
                "options of the container)",
            )
        else:
            if not seen:
                yield _unseen(user)


def _sees(user: str) -> bool:
    """Return whether /proc shows in which call a child of this user waits: readiness needs it."""
    cat = shutil.which("cat", path=os.defpath)
    if cat is None or (user and os.geteuid() != 0):
        return True  # cannot be tried
    entry = account(user) if user else None
    uid = user_number(user) if user else None
    gid = entry.pw_gid if entry else uid
    with subprocess.Popen(
        [cat], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, user=uid, group=gid,
        extra_groups=None if uid is None else (), cwd="/",
    ) as child:  # fmt: skip
        try:
            Path(f"/proc/{child.pid}/task/{child.pid}/syscall").read_bytes()
        except OSError:
            return False
        return True


def _unseen(user: str) -> Finding:
    scope = _number("kernel/yama/ptrace_scope") or 0
    whose = f"a process of {user}" if user else "a process of its own user"
    fix = "give the manager CAP_SYS_PTRACE (CapabilityBoundingSet=), mount /proc without hidepid="
    if scope > 1:
        fix = "sysctl kernel.yama.ptrace_scope=1"
    return Check.UNSEEN_WORKERS.found(
        subject=user or "kernel",
        what=f"a manager cannot see here what {whose} waits for",
        why='with ready = "accepting", a worker is ready when a connection of ours was accepted, '
        "maybe by a sibling; on a unix socket one that shows no epoll never is",
        fix=f'{fix}, or set ready = "notify"',
    )


# --- Settings ------------------------------------------------------------------------------------


def _backlog(listens: Collection[Listen]) -> Iterator[Finding]:
    most = _number("net/core/somaxconn")
    for listen in listens:
        if most is not None and listen.address.traits.is_stream and listen.backlog > most:
            yield Check.SOMAXCONN.found(
                subject=f"listen.{listen.name}",
                what=f"listen.{listen.name} is to let {listen.backlog} connections wait, and "
                f"net.core.somaxconn is {most}",
                why=f"the kernel turns away whoever comes when {most} wait, as in a burst",
                fix=f"sysctl net.core.somaxconn={listen.backlog}, or backlog = {most}",
            )


def _abort_on_overflow(listens: Collection[Listen]) -> Iterator[Finding]:
    traits = [listen.address.traits for listen in listens]
    tcp = any(each.is_internet and each.is_stream for each in traits)
    if tcp and _number("net/ipv4/tcp_abort_on_overflow"):
        yield Check.ABORT_ON_OVERFLOW.found(
            subject="net.ipv4.tcp_abort_on_overflow",
            what="net.ipv4.tcp_abort_on_overflow is 1",
            why="who comes when a queue is full is reset at once; otherwise the client's kernel "
            "would try again and get in a moment later",
            fix="sysctl net.ipv4.tcp_abort_on_overflow=0",
        )


def outgoing_ports() -> tuple[int, int] | None:
    """Return the first and the last port for outgoing connections, None if not known."""
    words = _words("net/ipv4/ip_local_port_range")
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def _absent(listens: Collection[Listen]) -> Iterator[Finding]:
    for listen in listens:
        refused = refusal(listen.address, 0) if listen.address.traits.is_internet else None
        if refused and refused.errno in ABSENT:  # doctor/start has a finding for other reasons
            yield Check.ADDRESS_ABSENT.found(
                subject=f"listen.{listen.name}",
                what=f"this host does not have the address of {listen.address} now",
                why="a manager listens there all the same, and nobody can connect until it comes",
                fix=f'write an address of this host ("ip addr") in listen.{listen.name}, if it is '
                "not one that comes later",
            )


def refusal(address: Address, port: int) -> OSError | None:
    """Return why no socket can be bound to an address, None if one can; it is in nobody's way."""
    host = None if address.host in ("", "*") else address.host.encode()
    kind = socket.SOCK_STREAM if address.traits.is_stream else socket.SOCK_DGRAM
    refused: OSError | None = None
    try:
        for family, *_, target in socket.getaddrinfo(
            host, port, type=kind, flags=socket.AI_PASSIVE
        ):
            refused = _bind(family, kind, target)
            if refused is None or refused.errno not in ABSENT:
                break
    except socket.gaierror as error:
        return error
    return refused


def _bind(family: int, kind: int, target: tuple[Any, ...]) -> OSError | None:
    try:
        # Bound with SO_REUSEADDR and never listening, it is in no other program's way.
        with socket.socket(family, kind) as sock:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(target)
    except OSError as error:
        return error
    return None


def _outgoing_port(listens: Collection[Listen]) -> Iterator[Finding]:
    first, last = outgoing_ports() or (0, -1)
    text = ",".join(_words("net/ipv4/ip_local_reserved_ports"))
    reserved = [part.partition("-")[::2] for part in text.split(",") if part]
    for listen in listens:
        port = listen.address.port
        outgoing = listen.address.traits.is_internet and first <= port <= last
        if outgoing and not any(int(low) <= port <= int(high or low) for low, high in reserved):
            yield Check.OUTGOING_PORT.found(
                subject=f"listen.{listen.name}",
                what=f"port {port} of listen.{listen.name} is one that the kernel gives to "
                "outgoing connections",
                why="while no manager holds it, such a connection may take it, and then the next "
                "manager cannot listen",
                fix=f"sysctl net.ipv4.ip_local_reserved_ports={port}, or another port below "
                f"{first}",
            )


def _words(name: str) -> list[str]:
    try:
        return (_SYS / name).read_text().split()
    except OSError:  # this kernel, or this namespace, does not have it
        return []


def _number(name: str) -> int | None:
    words = _words(name)
    return int(words[0]) if words else None
