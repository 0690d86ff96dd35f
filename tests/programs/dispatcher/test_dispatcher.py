"""Every connection reaches a worker that takes it, whatever workers do and however few they are."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from sockmgr.config.spec import Policy
from sockmgr.programs.dispatcher.channel import BATCH, Channel
from sockmgr.programs.dispatcher.events import Timing
from sockmgr.programs.dispatcher.link import MAX_UNTAKEN
from tests.helpers.children import open_fds
from tests.helpers.dispatching import (
    Stage,
    is_served,
    listening,
    listening_at,
    stage,
)

QUICK = Timing(take=0.01, replace=0.03, rest=0.01, longest_rest=0.02)
PATIENT = Timing(take=0.01, replace=1000)


def queued(listener: socket.socket) -> int:
    """Return how many connections wait in the kernel: tcpi_unacked of TCP_INFO."""
    return listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[24]


def nothing_happens(on: Stage) -> None:
    """Fail if the loop wakes up once it has done what there is to do."""
    while on.turn_for(0.01):
        pass
    assert on.turn_for(0.05) == 0


# --- To whom -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", Policy)
def test_held_connections_are_spread_evenly(policy: Policy) -> None:
    with stage(policy=policy) as on:
        workers = [on.ready(lease) for lease in range(4)]
        on.connect(64)
        on.passed(64)
        assert [len(worker.take()) for worker in workers] == [16, 16, 16, 16]


def test_nothing_is_passed_to_a_worker_before_it_takes() -> None:
    with stage() as on:
        worker = on.join(0)
        on.feed({0: 1})
        (client,) = on.connect()
        on.turn_for(0.01)
        assert on.dispatcher.open(0) == 0
        worker.take()
        on.passed(1)
        (connection,) = worker.take()
        assert is_served(connection, client)


def test_who_is_not_fed_gets_no_more() -> None:
    with stage() as on:
        old, new = on.ready(0), on.ready(1)
        on.feed({1: 1})
        on.connect(10)
        on.passed(10)
        assert (len(old.take()), len(new.take())) == (0, 10)


def test_when_nobody_is_fed_connections_wait_in_the_kernel() -> None:
    with stage() as on:
        worker = on.ready(0)
        on.feed({})
        on.connect(10)
        listener = on.listeners["http"]
        on.until(lambda: queued(listener) == 10, what="ten wait")
        nothing_happens(on)  # nobody looks at them meanwhile
        on.feed({0: 1})
        on.passed(10)
        assert len(worker.take()) == 10


def test_who_waits_for_room_gets_it_when_workers_may_have_more() -> None:
    with stage(most=1) as on:
        worker = on.ready(0)
        on.connect(2)
        on.passed(1)
        worker.take()
        on.dispatcher.configure(Policy.ROUND_ROBIN, None)
        on.passed(2)
        assert len(worker.take()) == 1


def test_each_worker_gets_connections_of_its_own_listeners_only() -> None:
    with listening() as http, listening() as admin:
        on = Stage({"http": http, "admin": admin})
        try:
            both = on.ready(0, ["admin", "http"])
            one = on.ready(1, ["http"])
            on.connect(6)
            on.connect(2, "admin")
            on.passed(8)
            seen = Counter(each.listener for each in both.take())
            assert seen["admin"] == 2
            assert {each.listener for each in one.take()} == {"http"}
            assert seen["http"] + len(one.taken) == 6
        finally:
            on.close()


def test_two_queues_of_one_listener_are_both_accepted_from_until_one_is_left_out() -> None:
    with listening() as old, listening() as new:
        on = Stage({"http": old, "same": new})
        try:
            on.dispatcher.listen({old: "http", new: "http"})
            worker = on.ready(0)
            on.connect(2)
            on.connect(3, "same")
            on.until(lambda: worker.has(5), what="all are served")
            assert {each.listener for each in worker.taken} == {"http"}
            on.dispatcher.listen({new: "http"})
            on.connect(2)
            on.connect(1, "same")
            on.until(lambda: worker.has(6), what="one is served")
            on.until(lambda: queued(old) == 2, what="two wait")
        finally:
            on.close()


def test_connections_of_a_unix_socket_are_passed(tmp_path: Path) -> None:
    with listening_at(tmp_path / "http") as listener:
        on = Stage({"http": listener})
        try:
            workers = [on.ready(lease) for lease in (0, 1)]
            clients = on.connect(4)
            on.passed(4)
            for worker in workers:
                for connection in worker.take():
                    connection.sendall(b"hello")
            assert [client.recv(5) for client in clients] == [b"hello"] * 4
        finally:
            on.close()


# --- How many ------------------------------------------------------------------------------------


def test_when_all_are_full_the_rest_waits_in_the_kernel() -> None:
    with stage(most=3) as on:
        workers = [on.ready(lease) for lease in (0, 1)]
        on.connect(10)
        on.passed(6)
        listener = on.listeners["http"]
        on.until(lambda: queued(listener) == 4, what="four wait")
        assert on.dispatcher.held == 0
        assert [len(worker.take()) for worker in workers] == [3, 3]
        nothing_happens(on)
        workers[1].end(2)
        on.until(workers[1].take, what="there is room again")
        on.until(lambda: queued(listener) == 2, what="two wait")
        assert (on.dispatcher.open(0), on.dispatcher.open(1)) == (3, 3)


def test_two_listeners_take_turns_when_there_is_room_for_one() -> None:
    with listening() as http, listening() as admin:
        on = Stage({"http": http, "admin": admin}, most=1)
        try:
            worker = on.ready(0, ["http", "admin"])
            on.connect(6)
            on.connect(6, "admin")
            seen = []
            for _ in range(8):
                on.until(worker.take, what="the next connection")
                seen.append(worker.taken[0].listener)
                worker.end(1)
            assert Counter(seen[-6:]) == {"http": 3, "admin": 3}
        finally:
            on.close()


def test_a_worker_that_never_reads_gets_no_more_than_a_few() -> None:
    with stage() as on:
        silent, busy = on.ready(0), on.ready(1)
        on.connect(400)
        on.until(lambda: busy.take() is None or len(busy.taken) > 250, what="others serve")
        assert on.dispatcher.open(0) < MAX_UNTAKEN + BATCH
        rest = 400 - on.dispatcher.open(0)
        on.until(lambda: busy.has(rest), what="others serve all the rest")
        assert len(silent.take()) == 400 - rest


def test_an_idle_dispatcher_does_not_wake_up() -> None:
    with stage(timing=PATIENT) as on:
        worker = on.ready(0)
        on.connect(3)
        on.passed(3)
        worker.take()
        on.until(lambda: on.turn_for(2 * PATIENT.take) == 0, what="the last look")
        nothing_happens(on)


def test_clients_that_say_nothing_cost_nothing() -> None:
    with stage(timing=PATIENT) as on:
        workers = [on.ready(lease) for lease in (0, 1)]
        before = open_fds()
        for count in range(500, 5001, 500):
            on.connect(500)
            on.until(
                lambda n=count: (
                    [w.take() for w in workers] and sum(len(w.taken) for w in workers) == n
                ),
                what="all are taken",
            )
        mine = len(open_fds() - before) - len(on.clients) - 5000
        assert (mine, on.dispatcher.held) == (0, 0)
        on.until(lambda: on.turn_for(2 * PATIENT.take) == 0, what="the last look")
        nothing_happens(on)


# --- Workers that die or misbehave ---------------------------------------------------------------


def test_what_a_dead_worker_had_not_taken_is_passed_to_others() -> None:
    with stage() as on:
        dead, living = on.ready(0), on.ready(1)
        on.connect(10)
        on.passed(10)
        dead.connections.close()
        on.dispatcher.detach(0)
        on.until(lambda: living.has(10), what="all are served")
        assert (on.dispatcher.held, on.dispatcher.accepted) == (0, 10)


def test_what_a_dead_worker_had_not_taken_waits_for_its_successor() -> None:
    with stage(most=2) as on:
        on.ready(0)
        on.connect(2)
        on.passed(2)
        on.dispatcher.detach(0)
        assert on.dispatcher.held == 0  # the kernel has them, not we
        on.workers.pop(0).close()
        on.took.clear()
        successor = on.ready(0)
        on.until(successor.take, what="both arrive")
        assert len(successor.taken) == 2


def test_a_worker_that_does_not_take_gives_back_what_waits_for_it() -> None:
    with stage(timing=PATIENT) as on:
        silent, living = on.ready(0), on.ready(1)
        on.connect(10)
        on.until(lambda: living.has(10), what="all are served")
        assert on.dispatcher.open(0) == 0
        assert not on.misbehaved
        on.connect(4)
        on.until(lambda: living.has(14), what="it gets no more")
        assert sum("worker takes no connections worker=web@1.0" in x for x in on.said) == 1
        silent.take()  # it answers
        on.connect(4)
        on.until(silent.take, what="it gets connections again")


def test_a_worker_that_does_not_take_for_long_is_to_be_replaced() -> None:
    with stage(timing=QUICK) as on:
        on.ready(0)
        on.connect(3)  # and there is nobody else to whom they could be given
        on.until(lambda: on.misbehaved, what="it is told of")
        assert "it took no connection" in on.misbehaved[0]
        assert on.dispatcher.held == 0
        other = on.ready(1)
        on.until(lambda: other.has(3), what="they are served")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no report"),
        ((2**63).to_bytes(8, "little") * 4, "it closed"),
        (b"".join(n.to_bytes(8, "little") for n in (0, 99, 1, 0)), "it took 99 connections"),
        (None, "closed its channel"),
    ],
)
def test_a_worker_that_lies_gets_no_more_and_is_to_be_replaced(
    said: bytes | None, why: str
) -> None:
    with stage() as on:
        liar, honest = on.ready(0), on.ready(1)
        on.connect(10)
        on.passed(10)
        channel = liar.connections._channel
        if said is None:
            channel.shutdown(socket.SHUT_RDWR)
        else:
            for _ in range(20):
                channel.send(said)
        on.until(lambda: on.misbehaved, what="it is told of")
        assert why in on.misbehaved[0]
        on.until(lambda: honest.has(10), what="others serve")
        on.connect(4)
        on.until(lambda: honest.has(14), what="it gets no more")
        nothing_happens(on)  # nor is it listened to any more


def test_a_channel_that_breaks_while_the_dead_are_emptied_costs_nobody_a_connection() -> None:
    """To pass on what a dead worker had not taken may show that another one hears nothing more."""

    with stage() as on:
        dead, deaf, honest = on.ready(0), on.ready(1), on.ready(2)
        on.connect(9)
        on.passed(9)
        deaf.connections._channel.shutdown(socket.SHUT_RD)
        dead.close()
        on.dispatcher.detach(0)
        on.until(lambda: 1 in on.misbehaved, what="the deaf one is found")
        on.dispatcher.detach(1)
        on.until(lambda: honest.has(9), what="the one that is left serves all")


def test_what_a_worker_lost_is_told_and_makes_room() -> None:
    with stage(most=5) as on:
        worker = on.ready(0)
        on.connect(5)
        on.passed(5)
        worker.take()
        with worker.connections._lock:
            worker.connections._lose(2)
        on.passed(3)
        assert any("worker lost connections worker=web@1.0 count=2" in each for each in on.said)


# --- Draining ------------------------------------------------------------------------------------


def test_it_is_quiet_when_the_worker_has_taken_all() -> None:
    with stage() as on:
        old, new = on.ready(0), on.ready(1)
        on.connect(4)
        on.passed(4)
        on.feed({1: 1})
        on.dispatcher.quiet(0)
        on.turn_for(0.01)
        assert not on.quiet
        old.take()
        on.until(lambda: on.quiet == {0}, what="it is quiet")
        on.quiet.clear()
        on.dispatcher.quiet(0)
        on.until(lambda: on.quiet == {0}, what="it still is")
        on.connect(4)
        on.passed(8)
        assert (len(old.taken), len(new.take())) == (2, 6)


def test_it_is_quiet_when_others_got_what_a_worker_does_not_take() -> None:
    with stage(timing=PATIENT) as on:
        on.ready(0)
        new = on.ready(1)
        on.connect(4)
        on.passed(4)
        on.feed({1: 1})
        on.dispatcher.quiet(0)
        on.until(lambda: new.has(4), what="the other one has all")
        on.until(lambda: on.quiet == {0}, what="it is quiet")


def test_it_is_quiet_when_the_worker_is_gone() -> None:
    with stage() as on:
        on.ready(0)
        on.connect()
        on.passed(1)
        on.feed({})
        on.dispatcher.quiet(0)
        on.dispatcher.detach(0)
        on.until(lambda: on.quiet == {0}, what="it is quiet")


# --- Another dispatcher --------------------------------------------------------------------------


def test_the_next_dispatcher_knows_what_is_open_and_loses_nothing() -> None:
    with stage(most=8) as on:
        worker = on.ready(0)
        on.connect(8)
        on.passed(8)
        batch = worker.connections.take()
        worker.taken += batch
        worker.end(2)  # the last thing that the old one may not have read
        kept = on.channels[0]
        channel = Channel.adopt(*(os.dup(fd) for fd in (kept.fileno(), kept.theirs)))
        on.dispatcher.close()

        later = Stage(on.listeners, most=8)
        later.workers = {0: worker}
        try:
            later.dispatcher.attach(0, "web@1.0", channel, ["http"])
            later.connect(4)
            later.until(lambda: worker.take() or 0 in later.took, what="it answers")
            later.until(lambda: worker.has(8), what="it is full")
            assert later.dispatcher.open(0) == 8
            later.until(lambda: queued(later.listeners["http"]) == 2, what="two wait")
        finally:
            on.clients += later.clients
            later.dispatcher.close()


def test_the_next_dispatcher_gives_to_others_what_a_worker_does_not_take() -> None:
    with stage() as on:
        on.ready(0)
        on.connect(3)
        on.passed(3)
        on.channels[0].ask(1)  # to be in the way of our own question
        kept = on.channels[0]
        channel = Channel.adopt(*(os.dup(fd) for fd in (kept.fileno(), kept.theirs)))
        on.dispatcher.close()

        later = Stage(on.listeners, timing=PATIENT)
        try:
            later.dispatcher.attach(0, "web@1.0", channel, ["http"])
            other = later.ready(1)
            later.until(lambda: other.has(3), what="the other one serves")
            on.workers[0].take()  # and now it answers
            later.until(lambda: 0 in later.took, what="it takes")
            assert later.dispatcher.open(0) == 0
        finally:
            later.close()


def test_a_connection_that_nobody_serves_any_more_holds_up_nobody() -> None:
    with listening() as http, listening() as admin:
        on = Stage({"http": http, "admin": admin})
        try:
            on.ready(0, ["http", "admin"])
            on.connect(1, "admin")
            on.connect(2)
            on.passed(3)
            on.took.clear()
            successor = on.ready(1)
            on.dispatcher.listen({http: "http"})
            on.dispatcher.detach(0)
            on.until(lambda: successor.has(2), what="the others are served")
            on.connect(2)
            on.until(lambda: successor.has(4), what="new ones, too")
            assert on.dispatcher.held == 1
        finally:
            on.close()
