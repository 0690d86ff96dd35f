"""Pools of queues: what is fed, what is not, and that no connection is lost meanwhile."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import socket
import time
from collections import Counter

import pytest

from sockmgr.config.spec import Scheme
from sockmgr.errors import ListenError
from sockmgr.kernel import queues, sockets
from sockmgr.kernel.steering import classic, places
from sockmgr.kernel.steering.admission import (
    admit_handshakes,
    restore_handshakes,
    shorten_handshakes,
)
from sockmgr.kernel.steering.pool import Pool, settle
from tests.helpers.hammer import Hammer, Server, ask
from tests.helpers.pools import down, filled, lengths, listen, pool_of, target


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_only_the_fed_queue_gets_connections(host: str) -> None:
    with pool_of(3, host) as pool:
        for number in (2, 0, 1):
            pool.feed({number: 1})
            with filled(pool, 12) as found:
                assert found == [12 * (number == n) for n in range(3)]


def test_weights_share_connections_among_the_fed_queues_only() -> None:
    with pool_of(4) as pool:
        pool.feed({0: 3, 3: 1})
        with filled(pool, 200) as found:
            assert found[1:3] == [0, 0]
            assert found[0] + found[3] == 200
            assert 20 <= found[3] <= 85  # 50 expected; five standard deviations are 31


@pytest.mark.parametrize("weights", [{}, {0: 0}, {7: 1}, {0: 1, 7: 1}, {-1: 1}])
def test_what_cannot_be_fed_is_refused_and_changes_nothing(weights: dict[int, int]) -> None:
    with pool_of(2) as pool:
        pool.feed({1: 1})
        with pytest.raises(ValueError, match="cannot feed"):
            pool.feed(weights)
        assert pool.fed == {1: 1}
        with filled(pool, 5) as found:
            assert found == [0, 5]


def test_a_feed_that_failed_is_not_remembered() -> None:
    with pool_of(2) as pool, pytest.MonkeyPatch.context() as patch:
        pool.feed({1: 1})
        patch.setattr(classic, "attach", refuse)
        with pytest.raises(PermissionError):
            pool.feed({0: 1})
        assert pool.fed == {1: 1}


def test_a_queue_whose_filter_a_worker_has_locked_keeps_nobody_from_steering() -> None:
    with pool_of(2) as pool:
        pool.queues[0].setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER, socket(7)
        pool.feed({1: 1})
        with filled(pool, 5) as found:
            assert found == [0, 5]


def test_where_no_place_can_be_found_it_is_known_how_the_kernel_moves_queues() -> None:
    with pool_of(3) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "find", refuse)  # as without root
        pool.feed({1: 1})
        pool.queues[0].shutdown(socket.SHUT_RDWR)
        pool.revive([0], backlog=256)
        assert pool.order == (2, 1, 0)


def refuse(*_: object) -> None:
    raise PermissionError(errno.EPERM, "not permitted")


def test_a_new_queue_gets_nothing_before_it_is_fed() -> None:
    with pool_of(1) as pool, Server(pool.queues) as server:
        with Hammer(socket.AF_INET, target(pool)) as hammer:
            for number in range(1, 9):
                pool.grow(backlog=256)
                server.add(pool.queues[number], number)
                hammer.wait_for(100)
        assert hammer.failures == {}
        assert Counter(answer.queue for answer in hammer.answers).keys() == {0}


def test_no_connection_is_lost_or_misled_over_200_switches_and_5_joins() -> None:
    switches: list[tuple[float, float, int]] = []
    with pool_of(2) as pool, Server(pool.queues) as server:
        held = {queues.inode(queue) for queue in pool.queues}
        with Hammer(socket.AF_INET, target(pool)) as hammer:
            for turn in range(200):
                if turn % 40 == 20:
                    pool.grow(backlog=256)
                    server.add(pool.queues[-1], len(pool) - 1)
                fed = turn % len(pool)
                began = time.monotonic()
                pool.feed({fed: 1})
                switches.append((began, time.monotonic(), fed))
                hammer.wait_for(10)
        assert held < {queues.inode(queue) for queue in pool.queues}
    assert hammer.failures == {}
    checked = 0
    for (_, after, fed), (until, _, _) in itertools.pairwise(switches):
        wholly = [a for a in hammer.answers if after < a.began and a.ended < until]
        assert {answer.queue for answer in wholly} <= {fed}
        checked += len(wholly)
    assert checked > 500


def test_datagrams_go_to_the_fed_queue_only() -> None:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client, pool_of(3, scheme=Scheme.UDP) as pool:
        for number in (2, 1, 0):
            pool.feed({number: 1})
            client.sendto(b"hello", target(pool))
            client.sendto(b"", target(pool))
            assert [length > 0 for length in lengths(pool)] == [n == number for n in range(3)]
            assert [pool.queues[number].recv(9) for _ in range(2)] == [b"hello", b""]
            assert lengths(pool) == [0, 0, 0]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
@pytest.mark.parametrize("order", [(0,), (2,), (1, 0), (0, 1), (0, 2, 1), (3, 1, 0, 2)])
def test_queues_that_were_shut_down_in_any_order_come_back_as_the_same(
    host: str, order: tuple[int, ...]
) -> None:
    with pool_of(4, host) as pool:
        pool.feed({2: 1})
        for number in order:
            pool.queues[number].shutdown(socket.SHUT_RDWR)
        assert down(pool) == sorted(order)
        pool.revive(down(pool), backlog=256)
        assert down(pool) == []
        for number in (2, 0, 3, 1):
            if number != 2:
                pool.feed({number: 1})
            with filled(pool, 4) as found:
                assert found == [4 * (number == n) for n in range(4)]


def test_a_queue_whose_port_was_taken_meanwhile_stays_down_and_the_others_serve() -> None:
    with pool_of(2) as pool:
        address = pool.queues[0].getsockname()
        for queue in pool.queues:
            queue.shutdown(socket.SHUT_RDWR)
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(address)
            thief.listen()
            with pytest.raises(OSError, match="in use"):
                pool.revive(down(pool), backlog=256)
            assert down(pool) == [0, 1]
        pool.revive(down(pool), backlog=256)
        pool.feed({1: 1})
        with filled(pool, 4) as found:
            assert found == [0, 4]


@pytest.mark.parametrize("host", ["192.0.2.77", "2001:db8::77"])
@pytest.mark.parametrize("scheme", [Scheme.TCP, Scheme.UDP])
def test_queues_at_an_address_that_is_not_there_are_steered_and_grow_in_the_order_they_had(
    host: str, scheme: Scheme
) -> None:
    with pool_of(3, host, scheme) as pool:
        assert not pool.locate()
        assert pool.order == (0, 1, 2)
        pool.feed({2: 1})
        pool.grow(backlog=256)
        pool.feed({3: 1})


@pytest.mark.parametrize("scheme", [Scheme.TCP, Scheme.UDP])
def test_the_order_of_adopted_queues_is_found_without_disturbing_workers(scheme: Scheme) -> None:
    with pool_of(4, scheme=scheme) as pool:
        shuffled = [pool.queues[n].dup() for n in (2, 0, 3, 1)]
        adopted = Pool(shuffled, fed={0: 1})
        try:
            assert adopted.locate()
            assert lengths(pool) == [0, 0, 0, 0]
            adopted.feed({1: 1})
            if scheme is Scheme.TCP:
                with filled(adopted, 5) as found:
                    assert found == [0, 5, 0, 0]
                return
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", target(pool))
            assert [length > 0 for length in lengths(adopted)] == [False, True, False, False]
        finally:
            adopted.close()


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_socket_that_serves_alone_gets_company_without_a_stray(*, reuse_port: bool) -> None:
    strays = 0
    for _ in range(10):
        alone = sockets.bind(listen(), reuse_port=reuse_port)
        with Server([alone]) as server:
            with Hammer(socket.AF_INET, alone.getsockname()) as hammer:
                hammer.wait_for(50)
                pool = Pool.join(alone, backlog=256)
                hammer.wait_for(50)
                strays += queues.queued(pool.queues[1])
                server.add(pool.queues[1], 1)
                pool.feed({1: 1})
                fed_at = time.monotonic()
                hammer.wait_for(50)
                assert {each.queue for each in hammer.answers if each.began > fed_at} == {1}
            pool.close()
        assert hammer.failures == {}
    assert strays == 0


def test_a_udp_socket_that_serves_alone_gets_company() -> None:
    alone = sockets.bind(listen(scheme=Scheme.UDP), reuse_port=False)
    pool = Pool.join(alone, backlog=0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for fed in (0, 1):
            pool.feed({fed: 1})
            client.sendto(b"x", target(pool))
            assert [length > 0 for length in lengths(pool)] == [fed == 0, fed == 1]
            assert pool.queues[fed].recv(9) == b"x"
    pool.close()


def test_what_cannot_join_says_why_and_is_left_as_it_was() -> None:
    # A listener without SO_REUSEADDR that has accepted: no second socket can be bound beside it.
    with socket.socket() as alone, socket.socket() as client:
        alone.bind(("127.0.0.1", 0))
        alone.listen()
        client.connect(alone.getsockname())
        with alone.accept()[0]:
            with pytest.raises(ListenError, match="no second socket"):
                Pool.join(alone, backlog=256)
            assert not alone.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            with socket.create_connection(alone.getsockname()):
                alone.accept()[0].close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_root_can_join_a_socket_of_another_user() -> None:
    alone = sockets.bind(listen(), reuse_port=False)
    os.fchown(alone.fileno(), 65534, 65534)  # the socket's uid follows
    pool = Pool.join(alone, backlog=256)
    try:
        pool.grow(backlog=256)
        pool.feed({2: 1})
        with filled(pool, 3) as found:
            assert found == [0, 0, 3]
    finally:
        pool.close()


def test_new_queues_are_twins_of_the_first() -> None:
    with pool_of(2, "::1") as pool:
        for level, option in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
        ):
            assert pool.queues[1].getsockopt(level, option)
        assert not pool.queues[1].get_inheritable()


def test_settle_returns_and_needs_no_privilege() -> None:
    began = time.monotonic()
    settle()
    assert time.monotonic() - began < 1


def test_a_closed_pool_frees_the_port() -> None:
    with pool_of(3) as pool:
        where = target(pool)
    with pytest.raises(ConnectionRefusedError):
        ask(socket.AF_INET, where)


def test_handshakes_that_were_not_refused_can_be_admitted() -> None:
    with pool_of(1) as pool:
        admit_handshakes(pool[0])  # as after a refusal that the kernel did not allow
        with filled(pool, 1) as found:
            assert found == [1]


def test_handshakes_get_their_time_again_though_no_descriptor_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        shorten_handshakes(server)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))  # those that are open stay it
        try:
            restore_handshakes(server)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT) > 1
