"""Nobody but the manager reaches a queue that is not fed: not from another host, not from here.

    python -m tests.private_queue          as root, about two minutes
    python -m tests.private_queue --short  what the test suite runs

Another host, in a network namespace, sends all that it can while the way to the queue is open: the
addresses of the manager's connection, those of this host, and its own, from the same port, with the
flags of a handshake's every step, under all settings of the kernel that let such packets in. Then
another user of this host tries to get the address and the port of that connection. Counted is what
comes to the queue that is not fed; what comes to the fed one shows that the attempts are real. And
clients of the public connect while the manager opens and closes its way all the time: none is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sockmgr.config.spec import Scheme
from sockmgr.kernel.steering import classic, round_robin
from sockmgr.kernel.steering.calling import Way
from sockmgr.kernel.steering.flow import Flow
from sockmgr.kernel.steering.pool import Choice, Pool
from sockmgr.manager.listeners.listener import Listener
from tests.helpers import forger
from tests.helpers.capabilities import NOBODY
from tests.helpers.forger import (
    ACK,
    FAR_4,
    FAR_6,
    FAR_MAC,
    NEAR_4,
    NEAR_6,
    NEAR_MAC,
    NO_MAC,
    PUSH,
    SYN,
    FarHost,
    Segment,
)
from tests.helpers.hammer import Hammer, Server
from tests.helpers.listeners import opened, tcp
from tests.helpers.pools import lengths, pool_of

UNFED = 4
FED: Mapping[Choice, Mapping[int, int]] = {
    Choice.ONE: {0: 1},
    Choice.ROUND_ROBIN: {0: 1, 1: 1},
    Choice.RANDOM: {0: 1, 1: 1},
}
HOSTS = (NEAR_4, "0.0.0.0", "127.0.0.1", NEAR_6, "::", "::1")
SOURCES = {
    socket.AF_INET: ("127.0.0.1", "127.66.66.66", NEAR_4, FAR_4),
    socket.AF_INET6: ("::1", NEAR_6, FAR_6, "::ffff:127.0.0.1"),
}
TARGETS = {
    socket.AF_INET: (NEAR_4, "127.0.0.1"),
    socket.AF_INET6: (NEAR_6, "::1", "::ffff:127.0.0.1"),
}
# As the packets of this host have them, too.
MACS = tuple(itertools.product((NEAR_MAC, NO_MAC, "ff:ff:ff:ff:ff:ff"), (FAR_MAC, NO_MAC)))
# Of both the interface and all: whether packets of this host itself may come from elsewhere, and
# whether a way back to their source is asked for.
LOOSE = tuple(itertools.product((0, 1), (0, 1), (0, 1, 2), (1, 2)))
SHORT = ((0, 0, 1, 1), (1, 1, 0, 2))
GUESSES = 200  # last segments with a number by chance


@dataclass(slots=True)
class Found:
    """What was counted: segments and connections that came to the queue that is not fed."""

    sent: int = 0
    completed: int = 0  # handshakes of the far host
    got_in: int = 0  # segments that came to a queue that is fed
    matched: int = 0  # segments that the program gave to the other
    connected: int = 0  # connections there, but for our own


def loosen(route_localnet: int, accept_local: int, rp_filter: int, syncookies: int) -> None:
    """Set what lets forged packets in."""
    root = Path("/proc/sys/net/ipv4")
    for conf in ("all", forger.NEAR):
        for name, value in (
            ("route_localnet", route_localnet), ("accept_local", accept_local),
            ("rp_filter", rp_filter),
        ):  # fmt: skip
            (root / "conf" / conf / name).write_text(str(value))
    (root / "tcp_syncookies").write_text(str(syncookies))


def segments(port: int, target_port: int) -> Iterator[Segment]:
    """Yield each step of a handshake with all addresses, from the port and the one beside it."""
    for family, sources in SOURCES.items():
        for source, target in itertools.product(sources, TARGETS[family]):
            for sport, flags, data in (
                (port, SYN, b""), (port, SYN, b"GET / HTTP/1.1\r\n\r\n"), (port, SYN | 0xC0, b""),
                (port, ACK, b""), (port, ACK | PUSH, b"x"), (port ^ 1, SYN, b""),
            ):  # fmt: skip
                for macs in MACS:
                    yield Segment(
                        source=source, target=target, sport=sport, dport=target_port, flags=flags,
                        ack=random.getrandbits(32), data=data, macs=macs,
                    )  # fmt: skip


def guesses(way: Way, port: int) -> Iterator[Segment]:
    """Yield the end of our own handshake, as who cannot see its beginning must guess it."""
    for _ in range(GUESSES):
        yield Segment(
            source=way.source, target=way.target[0], sport=port, dport=way.target[1], flags=ACK,
            seq=1001, ack=random.getrandbits(32),
        )  # fmt: skip


@contextlib.contextmanager
def open_way(pool: Pool) -> Iterator[tuple[socket.socket, Way]]:
    """Yield the socket of a connection that is about to begin, and stays so."""
    way = Way.to(pool.queues[0])
    with way.bound() as sock, pool.exception(Flow.of(sock, way.target[0]), UNFED):
        yield sock, way


def drops(queue: socket.socket) -> int:
    """Return how many packets the filter of a queue has dropped: SK_MEMINFO_DROPS."""
    return int(struct.unpack_from("=I", queue.getsockopt(socket.SOL_SOCKET, 55, 36), 32)[0])


@contextlib.contextmanager
def chosen(choice: Choice) -> Iterator[None]:
    """Have several queues chosen this way."""
    refusal = round_robin.Refusal("refused by a test", "nothing")
    before = round_robin.refusal
    if choice is Choice.RANDOM:
        round_robin.refusal = lambda: refusal
    try:
        yield
    finally:
        round_robin.refusal = before


@contextlib.contextmanager
def serving(host: str, choice: Choice) -> Iterator[Pool]:
    with chosen(choice), pool_of(5, host, Scheme.TCP) as pool:
        pool.feed(FED[choice])
        assert pool.choice is choice
        yield pool


def attack(far: FarHost, pool: Pool, found: Found) -> None:
    """Send all that there is, once to be counted and once to be answered."""
    with open_way(pool) as (sock, way):
        port, target_port = sock.getsockname()[1], way.target[1]
        every = [*segments(port, target_port), *guesses(way, port)]
        for queue in pool.queues:
            classic.put_filter(queue, classic.DROP)
        before = [drops(queue) for queue in pool.queues]
        far.send(every)
        found.sent += len(every)
        dropped = [drops(queue) - was for queue, was in zip(pool.queues, before, strict=True)]
        found.matched += dropped[UNFED]
        found.got_in += sum(dropped[:UNFED])
        for queue in pool.queues:
            classic.remove_filter(queue)
        found.sent += len(every)
        found.completed += far.send(every)
        for source, target in ((FAR_4, NEAR_4), (FAR_6, NEAR_6)):
            far.connect(source, port, target, target_port)
        found.connected += lengths(pool)[UNFED]


def elsewhere(
    far: FarHost, settings: Sequence[tuple[int, int, int, int]], hosts: Sequence[str]
) -> bool:
    """Attack from another host under these settings; print what was found, and judge it."""
    good = True
    for choice in Choice:
        if choice is Choice.ROUND_ROBIN and round_robin.refusal():
            continue
        found = Found()
        for setting, host in itertools.product(settings, hosts):
            loosen(*setting)
            with serving(host, choice) as pool:
                attack(far, pool, found)
        print(f"from another host, {choice}: {found}")
        good &= not found.connected and not found.matched
        good &= found.got_in > 0 and found.completed > 0
    return good


# --- On this host --------------------------------------------------------------------------------

# What another user runs, with the address and the port of a socket and where that connects to:
# each way to be bound to the same. Prints how often it was connected from there.
INTRUDER = """if True:
    import itertools, socket, struct, sys
    source, port, host, target_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    REUSEADDR, REUSEPORT, TO_DEVICE = (1, 2), (1, 15), (1, 25)  # socket(7)
    FREEBIND, TRANSPARENT, NO_PORT, RANGE = (0, 15), (0, 19), (0, 24), (0, 51)  # ip(7)
    own = socket.AF_INET6 if ":" in source else socket.AF_INET
    places = [(own, source), (own, "::" if ":" in source else ""), (socket.AF_INET6, "::")]
    if own == socket.AF_INET:
        places.append((socket.AF_INET6, "::ffff:" + source))
    reuse = [(), (REUSEADDR,), (REUSEPORT,), (REUSEADDR, REUSEPORT)]
    connected = 0
    for (family, address), options, more, at in itertools.product(
        places, reuse, [None, FREEBIND, TRANSPARENT, RANGE, TO_DEVICE], (port, 0)
    ):
        target = "::ffff:" + host if family != own else host
        with socket.socket(family) as sock:
            sock.settimeout(1)
            try:
                if family == socket.AF_INET6:
                    sock.setsockopt(41, 26, 0)  # both families
                for option in options:
                    sock.setsockopt(*option, 1)
                if more == RANGE:
                    sock.setsockopt(*NO_PORT, 1)
                    sock.setsockopt(*RANGE, struct.pack("=HH", port, port))
                elif more:
                    sock.setsockopt(*more, b"lo" if more == TO_DEVICE else 1)
                sock.bind((address, 0 if more == RANGE else at))
                sock.connect((target, target_port))
                connected += sock.getsockname()[1] == port
            except OSError:
                pass
    print(connected)
"""


def intrude(user: int, way: Way, port: int) -> int:
    """Return how often a user of this host was connected from our address and port."""
    host, target_port = way.target[:2]
    done = subprocess.run(
        ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", sys.executable, "-c",
         INTRUDER, way.source, str(port), host, str(target_port)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


def here(hosts: Sequence[str], users: Sequence[int]) -> bool:
    """Have users of this host try to take the place of our connection; print, and judge it."""
    tried = {"before": 0, "meanwhile": 0, "control": 0}
    strays = 0
    for host, user in itertools.product(hosts, users):
        with pool_of(5, host) as pool:
            pool.feed({0: 1})
            with open_way(pool) as (sock, way):
                port = sock.getsockname()[1]
                tried["before"] += intrude(user, way, port)
                strays += lengths(pool)[UNFED]
                sock.setblocking(True)
                sock.connect(way.target)
                tried["meanwhile"] += intrude(user, way, port)
                strays += lengths(pool)[UNFED] - 1
            way = Way.to(pool.queues[0])
            # The same with the option that one must not set: the attempts are real.
            with socket.socket(way.family) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((way.source, 0))
                tried["control"] += intrude(user, way, sock.getsockname()[1])
    print(f"on this host: connected from our address and port {tried}, strays {strays}")
    return not (tried["before"] or tried["meanwhile"] or strays) and tried["control"] > 0


# --- Meanwhile -----------------------------------------------------------------------------------


async def call(listener: Listener, seconds: float) -> int:
    """Connect to the queue that is not fed every 20 ms; return how often that was."""
    end, calls = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        (await listener.reach(UNFED)).close()
        calls += 1
        await asyncio.sleep(0.02)
    return calls


def under_load(seconds: float) -> bool:
    """Have clients of the public connect all the time; print what became of them, and judge it."""
    good = True
    for choice in Choice:
        with contextlib.ExitStack() as stack:
            stack.enter_context(chosen(choice))
            listener = stack.enter_context(opened(tcp(backlog=256)))
            listener.lease(UNFED)
            listener.feed(FED[choice])
            stack.enter_context(Server(listener.queues))
            address = listener.queues[0].getsockname()
            hammer = stack.enter_context(Hammer(socket.AF_INET, address))
            calls = asyncio.run(call(listener, seconds))
        shares = Counter(answer.queue for answer in hammer.answers)
        print(f"meanwhile, {choice}: {calls} calls, {len(hammer.answers)} connections of others, "
              f"failed {dict(hammer.failures)}, by queue {dict(shares)}")  # fmt: skip
        good &= not hammer.failures and shares.keys() == FED[choice].keys()
    return good


def main(arguments: Sequence[str]) -> int:
    """Run again in a network namespace of our own, then attack."""
    if "--inside" not in arguments:
        command = [sys.executable, "-m", "tests.private_queue", "--inside", *arguments]
        return subprocess.run(["unshare", "--net", *command], check=False).returncode
    is_short = "--short" in arguments
    with forger.far_host() as far:
        if is_short:
            good = elsewhere(far, SHORT, ("0.0.0.0", NEAR_6, "::"))
            good &= here(("0.0.0.0", "::1"), (NOBODY,))
        else:
            good = elsewhere(far, LOOSE, HOSTS)
            good &= here(HOSTS, (NOBODY, os.geteuid())) and under_load(10)
    print("nobody else came there" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
