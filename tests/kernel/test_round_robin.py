"""Queues that take turns: exactly, whatever happens to one of them, and where it is refused."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from sockmgr.config.spec import Scheme
from sockmgr.kernel.steering import bpf, round_robin
from sockmgr.kernel.steering.pool import Choice, Pool, settle
from sockmgr.kernel.steering.round_robin import RoundRobin, turns
from tests.helpers.capabilities import CAP_BPF, CAP_CHOWN, needs_bpf
from tests.helpers.hammer import Hammer, Server
from tests.helpers.listeners import open_fds
from tests.helpers.pools import down, fill, filled, lengths, pool_of, target

pytestmark = needs_bpf
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do so")


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Five queues; the last is never fed, and would show what went astray."""
    with pool_of(5) as pool:
        yield pool


def shares(pool: Pool, number: int) -> list[int]:
    with filled(pool, number) as found:
        return found


def datagrams(queue: socket.socket) -> list[bytes]:
    found = []
    queue.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(queue.recv(9))
    return found


def test_turns_go_on_where_they_were_if_the_same_is_fed_again(pool: Pool) -> None:
    every = dict.fromkeys(range(3), 1)
    pool.feed(every)
    with filled(pool, 1) as first:
        pool.feed(every)
        with filled(pool, 2) as found:
            assert sorted(first) == [0, 0, 0, 0, 1]
            assert found == [1, 1, 1, 0, 0]


# --- Turns ---------------------------------------------------------------------------------------


def test_turns_follow_the_weights_and_are_spread_evenly() -> None:
    assert turns({4: 1, 2: 1, 7: 1}) == [4, 2, 7]
    assert turns({0: 30, 1: 10}) == [0, 0, 1, 0]
    assert turns({0: 2, 1: 1, 2: 1}) == [0, 1, 2, 0]
    tenth = turns({0: 9, 1: 1}) * 3
    assert all(tenth[at : at + 10].count(1) == 1 for at in range(20))


def test_weights_of_any_size_make_a_list_of_bounded_length() -> None:
    found = Counter(turns({0: 10**9, 1: 10**7, 2: 1}))
    assert sum(found.values()) < 11_000
    assert found[2] == 1
    assert 95 < found[0] / found[1] < 105


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_a_burst_is_dealt_out_evenly(host: str) -> None:
    with pool_of(5, host) as pool:
        pool.feed({0: 1, 1: 1, 2: 1, 3: 1})
        assert (pool.choice, pool.refusal) == (Choice.ROUND_ROBIN, None)
        assert shares(pool, 64) == [16, 16, 16, 16, 0]


def test_weights_hold_exactly(pool: Pool) -> None:
    pool.feed({3: 3, 1: 1})
    assert shares(pool, 64) == [0, 16, 0, 48, 0]


def test_datagrams_of_one_sender_are_dealt_out_one_by_one() -> None:
    with pool_of(5, scheme=Scheme.UDP) as pool:
        pool.feed({0: 1, 1: 1, 2: 1, 3: 1})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(64):
                client.sendto(b"x", target(pool))
        assert [len(datagrams(queue)) for queue in pool.queues] == [16, 16, 16, 16, 0]


def test_one_queue_alone_needs_no_turns(pool: Pool) -> None:
    pool.feed({1: 1, 2: 1})
    pool.feed({2: 1, 1: 0})
    assert pool.choice is Choice.ONE
    assert shares(pool, 8) == [0, 0, 8, 0, 0]


def test_no_connection_is_lost_or_misled_over_200_changes_and_5_joins() -> None:
    changes: list[tuple[float, float, set[int]]] = []
    with (
        pool_of(3) as pool,
        Server(pool.queues) as server,
        Hammer(socket.AF_INET, target(pool)) as hammer,
    ):
        for turn in range(200):
            if turn % 40 == 20:
                pool.grow(backlog=256)
                server.add(pool.queues[-1], len(pool) - 1)
            fed = {turn % len(pool), (turn + 1) % len(pool)}
            began = time.monotonic()
            pool.feed(dict.fromkeys(fed, 1))
            changes.append((began, time.monotonic(), fed))
            assert pool.choice is Choice.ROUND_ROBIN
            hammer.wait_for(10)
    assert hammer.failures == {}
    checked = 0
    for (_, after, fed), (until, _, _) in itertools.pairwise(changes):
        wholly = [a for a in hammer.answers if after < a.began and a.ended < until]
        assert {answer.queue for answer in wholly} <= fed
        checked += len(wholly)
    assert checked > 500


def test_a_pool_that_outgrows_its_map_gets_a_larger_one(pool: Pool) -> None:
    pool.feed({0: 1, 1: 1})
    while len(pool) < 300:
        pool.grow(backlog=256)
    pool.feed({0: 1, 299: 1})
    assert (pool.choice, pool.refusal) == (Choice.ROUND_ROBIN, None)
    found = shares(pool, 10)
    assert (found[0], found[299]) == (5, 5)


# --- Queues that are shut down -------------------------------------------------------------------


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_turns_of_a_queue_that_was_shut_down_go_to_others_that_are_fed(
    pool: Pool, lost: int
) -> None:
    pool.feed({0: 1, 1: 1, 2: 1})
    pool.queues[lost].shutdown(socket.SHUT_RDWR)  # and nobody has told the pool
    found = shares(pool, 60)
    assert found[3:] == [0, 0]
    assert sorted(found[:3]) == [0, 20, 40]


def test_a_turn_that_no_queue_has_goes_to_the_fallback(pool: Pool) -> None:
    with contextlib.closing(RoundRobin(room=8)) as exact:
        exact.steer(pool.queues, {2: 1, 3: 1}, {}, settle, pool.queues[0])
        for order in ([7, 2], [900, 2, 3]):
            exact.take_order(order)
            program = exact.load([3], {})
            try:
                bpf.attach(pool.queues[0], program)
            finally:
                os.close(program)
            assert shares(pool, 12) == [0, 0, 12 // len(order), 12 - 12 // len(order), 0]


@pytest.mark.parametrize("order", [(0,), (2,), (1, 0), (0, 2, 1), (3, 1, 0, 2)])
def test_queues_that_were_shut_down_take_their_turns_again(
    pool: Pool, order: tuple[int, ...]
) -> None:
    pool.feed({0: 1, 1: 1, 2: 1, 3: 1})
    for number in order:
        pool.queues[number].shutdown(socket.SHUT_RDWR)
    pool.revive(down(pool), backlog=256)
    assert pool.choice is Choice.ROUND_ROBIN
    assert shares(pool, 64) == [16, 16, 16, 16, 0]


def test_a_queue_that_a_worker_shut_down_and_listens_on_again_is_found_when_in_doubt(
    pool: Pool,
) -> None:
    pool.feed({0: 1, 1: 1})
    pool.queues[1].shutdown(socket.SHUT_RDWR)
    pool.queues[1].listen(256)
    pool.steer_again()
    assert shares(pool, 10) == [5, 5, 0, 0, 0]


def test_what_waits_in_a_queue_that_is_shut_down_moves_to_those_that_are_fed(pool: Pool) -> None:
    pool.feed({0: 1, 1: 1, 2: 1})
    clients = fill(pool, 30)
    pool.queues[1].shutdown(socket.SHUT_RDWR)
    found = lengths(pool)
    assert found[0] + found[2] == 30
    assert found[3:] == [0, 0]
    for number in (0, 2):
        for _ in range(found[number]):
            connection, _ = pool.queues[number].accept()
            with connection:
                connection.sendall(b"x")
    for client in clients:
        with client:
            assert client.recv(1) == b"x"


# --- Managers that follow each other -------------------------------------------------------------


def test_the_next_manager_takes_over_under_load_and_queues_take_turns_again() -> None:
    fed = {0: 1, 1: 1, 2: 1}
    with (
        pool_of(4) as first,
        Server(first.queues),
        Hammer(socket.AF_INET, target(first)) as hammer,
    ):
        manager = first
        manager.feed(fed)
        for _ in range(5):
            hammer.wait_for(50)
            copies, order = [queue.dup() for queue in manager.queues], manager.order
            manager.close()  # its program goes on, and has the queues still
            hammer.wait_for(50)
            manager = Pool(copies, fed=fed, order=order)
            assert (manager.choice, manager.refusal) == (Choice.ROUND_ROBIN, None)
    manager.close()
    assert hammer.failures == {}
    assert Counter(answer.queue for answer in hammer.answers).keys() == fed.keys()


def test_queues_that_a_manager_still_holds_are_chosen_at_random_until_it_lets_go(
    pool: Pool,
) -> None:
    pool.feed({0: 1, 1: 1})
    other = Pool([queue.dup() for queue in pool.queues], fed={2: 1, 1: 1})
    with contextlib.closing(other):
        assert other.choice is Choice.RANDOM
        assert other.refusal is not None
        assert "busy" in other.refusal.reason
        found = shares(other, 20)
        assert found[1] + found[2] == 20
        pool.close()
        other.feed({2: 1, 1: 1})
        assert other.choice is Choice.ROUND_ROBIN
        assert shares(other, 20) == [0, 10, 10, 0, 0]


# --- What it costs -------------------------------------------------------------------------------


def in_the_kernel() -> int:
    """Return how many maps and programs there are (BPF_MAP_GET_NEXT_ID, BPF_PROG_GET_NEXT_ID)."""
    libc, number, count = ctypes.CDLL(None), bpf.NUMBER[platform.machine()], 0
    for command in (12, 11):
        ids = (ctypes.c_uint32 * 3)()  # after which one, the next one, flags
        while libc.syscall(number, command, ids, ctypes.c_long(12)) == 0:
            ids[0] = ids[1]
            count += 1
    return count


@as_root
def test_a_thousand_changes_leave_neither_descriptors_nor_maps_nor_programs() -> None:
    before, kept = open_fds(), in_the_kernel()
    with pool_of(3) as pool:
        pool.feed({0: 1, 1: 1})
        serving = open_fds()
        for turn in range(1000):
            pool.feed({turn % 3: 1, (turn + 1) % 3: 2})
        assert open_fds() == serving
        # Freed after an RCU grace period; some may be those of other processes.
        deadline = time.monotonic() + 30
        while in_the_kernel() > kept + 100:
            assert time.monotonic() < deadline, in_the_kernel() - kept
            settle()
    assert open_fds() == before


def test_no_worker_inherits_a_map() -> None:
    fd = bpf.create_map(bpf.ARRAY, value_size=8, entries=1)
    assert not os.get_inheritable(fd)
    os.close(fd)


# --- Where it is refused -------------------------------------------------------------------------


UNPRIVILEGED = """if True:
    import os, socket, sys
    sys.path.insert(0, os.getcwd())
    import encodings.idna
    from sockmgr.kernel.steering import round_robin
    from tests.helpers.capabilities import become_nobody
    from tests.helpers.pools import down, filled, pool_of

    become_nobody(int(sys.argv[1]))
    with pool_of(5) as pool:
"""
SHARES = """
        pool.feed({0: 1, 1: 1, 2: 1, 3: 1})
        print(pool.choice)
        print(pool.refusal and pool.refusal.reason)
        with filled(pool, 64) as found:
            print(*found)
"""
# Where the filter that locate() needs is refused to users, the kernel's order is unknown then.
SHUT_DOWN = """
        pool.feed({2: 1})
        for number in (3, 1, 0):
            pool.queues[number].shutdown(socket.SHUT_RDWR)
        pool.revive(down(pool), backlog=256)
        for number in range(5):
            pool.feed({number: 1})
            with filled(pool, 4) as found:
                print(pool.choice, found.index(4) == number)
"""


def unprivileged(capability: int, program: str, *under: str) -> list[str]:
    result = subprocess.run(
        [*under, sys.executable, "-c", UNPRIVILEGED + program, str(capability)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@as_root
def test_cap_bpf_alone_suffices() -> None:
    assert unprivileged(CAP_BPF, SHARES) == ["round robin (eBPF)", "None", "16 16 16 16 0"]


@as_root
def test_without_privilege_the_choice_is_random_among_those_that_are_fed() -> None:
    choice, reason, found = unprivileged(CAP_CHOWN, SHARES)
    assert (choice, reason) == ("random (classic BPF)", "bpf(2): operation not permitted")
    counts = [int(word) for word in found.split()]
    assert sum(counts[:4]) == 64
    assert counts[4] == 0


def test_what_fails_for_want_of_descriptors_is_tried_again(pool: Pool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # the limit is one of numbers, and there may be free ones below the last
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        for leases in ((0, 1), (1, 2)):
            pool.feed(dict.fromkeys(leases, 1))
            assert pool.choice is Choice.RANDOM
            assert pool.refusal is not None
            assert pool.refusal.reason == "bpf(2): too many open files"
            assert pool.refusal.do.endswith("tried again at the next change")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    pool.feed({0: 1, 1: 1})
    assert (pool.choice, pool.refusal) == (Choice.ROUND_ROBIN, None)


@as_root
def test_with_cap_bpf_queues_that_were_shut_down_come_back_as_the_same() -> None:
    assert unprivileged(CAP_BPF, SHUT_DOWN) == ["one queue True"] * 5


@as_root
def test_a_container_that_refuses_bpf_gets_a_random_choice() -> None:
    refuse = (sys.executable, "-m", "tests.helpers.refuse", "bpf")
    assert unprivileged(CAP_BPF, SHARES, *refuse)[0] == "random (classic BPF)"


def rejected(program: Sequence[tuple[int, int, int, int, int]]) -> bpf.RejectedError:
    with pytest.raises(bpf.RejectedError) as error:
        bpf.load(program)
    return error.value


def test_what_the_verifier_says_is_kept() -> None:
    error = rejected([(0xBF, 0, 7, 0, 0), (0x95, 0, 0, 0, 0)])  # r0 = r7; exit
    assert error.errno in (errno.EACCES, errno.EINVAL)
    assert "R7 !read_ok" in error.verifier
    refusal = round_robin.Refusal.of(error)
    assert refusal.reason.startswith("the kernel rejects the program: ")
    assert refusal.verifier == error.verifier
