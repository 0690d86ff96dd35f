"""Every connection reaches a worker that takes it, whatever workers do and however few they are."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from sockmgr.manager.dispatch.channel import BATCH, Channel
from sockmgr.manager.dispatch.dispatcher import MAX_UNTAKEN, Timing
from sockmgr.manager.dispatch.scheduler import Policy
from tests.helpers.children import open_fds
from tests.helpers.dispatching import (
    CountingSelector,
    Stage,
    is_served,
    listening,
    listening_at,
    run,
    stage,
    until,
)

QUICK = Timing(take=0.01, replace=0.03, rest=0.01, longest_rest=0.02)
PATIENT = Timing(take=0.01, replace=1000)


def queued(listener: socket.socket) -> int:
    """Return how many connections wait in the kernel: tcpi_unacked of TCP_INFO."""
    return listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[24]


async def nothing_happens(selector: CountingSelector) -> None:
    """Fail if the loop wakes up more often than a sleep of our own explains."""
    before = selector.turns
    await asyncio.sleep(0.05)
    assert selector.turns - before < 8


# --- To whom -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", Policy)
def test_held_connections_are_spread_evenly(policy: Policy) -> None:
    async def main(_: CountingSelector) -> None:
        async with stage(policy=policy) as on:
            workers = [await on.ready(lease) for lease in range(4)]
            on.connect(64)
            await on.passed(64)
            assert [len(worker.take()) for worker in workers] == [16, 16, 16, 16]

    run(main)


def test_nothing_is_passed_to_a_worker_before_it_takes() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage() as on:
            worker = on.join(0)
            on.dispatcher.feed({0: 1})
            (client,) = on.connect()
            await asyncio.sleep(0)
            assert on.dispatcher.open(0) == 0
            worker.take()
            await on.passed(1)
            (connection,) = worker.take()
            assert is_served(connection, client)

    run(main)


def test_who_is_not_fed_gets_no_more() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage() as on:
            old, new = await on.ready(0), await on.ready(1)
            on.dispatcher.feed({1: 1})
            on.connect(10)
            await on.passed(10)
            assert (len(old.take()), len(new.take())) == (0, 10)

    run(main)


def test_when_nobody_is_fed_connections_wait_in_the_kernel() -> None:
    async def main(selector: CountingSelector) -> None:
        async with stage() as on:
            worker = await on.ready(0)
            on.dispatcher.feed({})
            on.connect(10)
            listener = on.listeners["http"]
            await until(lambda: queued(listener) == 10, what="ten wait")
            await nothing_happens(selector)  # nobody looks at them meanwhile
            on.dispatcher.feed({0: 1})
            await on.passed(10)
            assert len(worker.take()) == 10

    run(main)


def test_each_worker_gets_connections_of_its_own_listeners_only() -> None:
    async def main(_: CountingSelector) -> None:
        with listening() as http, listening() as admin:
            on = Stage({"http": http, "admin": admin})
            try:
                both = await on.ready(0, ["admin", "http"])
                one = await on.ready(1, ["http"])
                on.connect(6)
                on.connect(2, "admin")
                await on.passed(8)
                seen = Counter(each.listener for each in both.take())
                assert seen["admin"] == 2
                assert {each.listener for each in one.take()} == {"http"}
                assert seen["http"] + len(one.taken) == 6
            finally:
                on.close()

    run(main)


def test_two_queues_of_one_listener_are_both_accepted_from_until_one_is_left_out() -> None:
    async def main(_: CountingSelector) -> None:
        with listening() as old, listening() as new:
            on = Stage({"http": old, "same": new})
            try:
                on.dispatcher.listen({old: "http", new: "http"})
                worker = await on.ready(0)
                on.connect(2)
                on.connect(3, "same")
                await until(lambda: worker.has(5), what="all are served")
                assert {each.listener for each in worker.taken} == {"http"}
                on.dispatcher.listen({new: "http"})
                on.connect(2)
                on.connect(1, "same")
                await until(lambda: worker.has(6), what="one is served")
                await until(lambda: queued(old) == 2, what="two wait")
            finally:
                on.close()

    run(main)


def test_connections_of_a_unix_socket_are_passed(tmp_path: Path) -> None:
    async def main(_: CountingSelector) -> None:
        with listening_at(tmp_path / "http") as listener:
            on = Stage({"http": listener})
            try:
                workers = [await on.ready(lease) for lease in (0, 1)]
                clients = on.connect(4)
                await on.passed(4)
                for worker in workers:
                    for connection in worker.take():
                        connection.sendall(b"hello")
                assert [client.recv(5) for client in clients] == [b"hello"] * 4
            finally:
                on.close()

    run(main)


# --- How many ------------------------------------------------------------------------------------


def test_when_all_are_full_the_rest_waits_in_the_kernel() -> None:
    async def main(selector: CountingSelector) -> None:
        async with stage(most=3) as on:
            workers = [await on.ready(lease) for lease in (0, 1)]
            on.connect(10)
            await on.passed(6)
            listener = on.listeners["http"]
            await until(lambda: queued(listener) == 4, what="four wait")
            assert on.dispatcher.held == 0
            assert [len(worker.take()) for worker in workers] == [3, 3]
            await nothing_happens(selector)
            workers[1].end(2)
            await until(workers[1].take, what="there is room again")
            await until(lambda: queued(listener) == 2, what="two wait")
            assert (on.dispatcher.open(0), on.dispatcher.open(1)) == (3, 3)

    run(main)


def test_two_listeners_take_turns_when_there_is_room_for_one() -> None:
    async def main(_: CountingSelector) -> None:
        with listening() as http, listening() as admin:
            on = Stage({"http": http, "admin": admin}, most=1)
            try:
                worker = await on.ready(0, ["http", "admin"])
                on.connect(6)
                on.connect(6, "admin")
                seen = []
                for _ in range(8):
                    await until(worker.take, what="the next connection")
                    seen.append(worker.taken[0].listener)
                    worker.end(1)
                assert Counter(seen[-6:]) == {"http": 3, "admin": 3}
            finally:
                on.close()

    run(main)


def test_a_worker_that_never_reads_gets_no_more_than_a_few() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage() as on:
            silent, busy = await on.ready(0), await on.ready(1)
            on.connect(400)
            await until(lambda: busy.take() is None or len(busy.taken) > 250, what="others serve")
            assert on.dispatcher.open(0) < MAX_UNTAKEN + BATCH
            rest = 400 - on.dispatcher.open(0)
            await until(lambda: busy.has(rest), what="others serve all the rest")
            assert len(silent.take()) == 400 - rest

    run(main)


def test_an_idle_dispatcher_does_not_wake_up() -> None:
    async def main(selector: CountingSelector) -> None:
        async with stage(timing=PATIENT) as on:
            worker = await on.ready(0)
            on.connect(3)
            await on.passed(3)
            worker.take()
            await until(lambda: on.dispatcher._untaken._check is None, what="the last look")
            await nothing_happens(selector)

    run(main)


def test_clients_that_say_nothing_cost_the_manager_nothing() -> None:
    async def main(selector: CountingSelector) -> None:
        async with stage(timing=PATIENT) as on:
            workers = [await on.ready(lease) for lease in (0, 1)]
            before = open_fds()
            for count in range(500, 5001, 500):
                on.connect(500)
                await until(
                    lambda n=count: (
                        [w.take() for w in workers] and sum(len(w.taken) for w in workers) == n
                    ),
                    what="all are taken",
                )
            mine = len(open_fds() - before) - len(on.clients) - 5000
            assert (mine, on.dispatcher.held) == (0, 0)
            await until(lambda: on.dispatcher._untaken._check is None, what="the last look")
            await nothing_happens(selector)

    run(main)


# --- Workers that die or misbehave ---------------------------------------------------------------


def test_what_a_dead_worker_had_not_taken_is_passed_to_others() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage() as on:
            dead, living = await on.ready(0), await on.ready(1)
            on.connect(10)
            await on.passed(10)
            dead.connections.close()
            on.dispatcher.detach(0)
            await until(lambda: living.has(10), what="all are served")
            assert (on.dispatcher.held, on.dispatcher.accepted) == (0, 10)

    run(main)


def test_what_a_dead_worker_had_not_taken_waits_for_its_successor() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage(most=2) as on:
            await on.ready(0)
            on.connect(2)
            await on.passed(2)
            on.dispatcher.detach(0)
            assert on.dispatcher.held == 0  # the kernel has them, not we
            on.workers.pop(0).close()
            on.took.clear()
            successor = await on.ready(0)
            await until(successor.take, what="both arrive")
            assert len(successor.taken) == 2

    run(main)


def test_a_worker_that_does_not_take_gives_back_what_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(_: CountingSelector) -> None:
        async with stage(timing=PATIENT) as on:
            silent, living = await on.ready(0), await on.ready(1)
            on.connect(10)
            await until(lambda: living.has(10), what="all are served")
            assert on.dispatcher.open(0) == 0
            assert not on.misbehaved
            on.connect(4)
            await until(lambda: living.has(14), what="it gets no more")
            told = [record.getMessage() for record in caplog.records]
            assert sum("worker takes no connections worker=web@1.0" in each for each in told) == 1
            silent.take()  # it answers
            on.connect(4)
            await until(silent.take, what="it gets connections again")

    run(main)


def test_a_worker_that_does_not_take_for_long_is_to_be_replaced() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage(timing=QUICK) as on:
            await on.ready(0)
            on.connect(3)  # and there is nobody else to whom they could be given
            await until(lambda: on.misbehaved, what="it is told of")
            assert "it took no connection" in on.misbehaved[0]
            assert on.dispatcher.held == 0
            other = await on.ready(1)
            await until(lambda: other.has(3), what="they are served")

    run(main)


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
    async def main(selector: CountingSelector) -> None:
        async with stage() as on:
            liar, honest = await on.ready(0), await on.ready(1)
            on.connect(10)
            await on.passed(10)
            channel = liar.connections._channel
            if said is None:
                channel.shutdown(socket.SHUT_RDWR)
            else:
                for _ in range(20):
                    channel.send(said)
            await until(lambda: on.misbehaved, what="it is told of")
            assert why in on.misbehaved[0]
            await until(lambda: honest.has(10), what="others serve")
            on.connect(4)
            await until(lambda: honest.has(14), what="it gets no more")
            await nothing_happens(selector)  # nor is it listened to any more

    run(main)


def test_a_channel_that_breaks_while_the_dead_are_emptied_costs_nobody_a_connection() -> None:
    """To pass on what a dead worker had not taken may show that another one hears nothing more."""

    async def main(_: CountingSelector) -> None:
        async with stage() as on:
            dead, deaf, honest = await on.ready(0), await on.ready(1), await on.ready(2)
            on.connect(9)
            await on.passed(9)
            deaf.connections._channel.shutdown(socket.SHUT_RD)
            dead.close()
            on.dispatcher.detach(0)
            await until(lambda: 1 in on.misbehaved, what="the deaf one is found")
            on.dispatcher.detach(1)
            await until(lambda: honest.has(9), what="the one that is left serves all")

    run(main)


def test_what_a_worker_lost_is_told_and_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    async def main(_: CountingSelector) -> None:
        async with stage(most=5) as on:
            worker = await on.ready(0)
            on.connect(5)
            await on.passed(5)
            worker.take()
            with worker.connections._lock:
                worker.connections._lose(2)
            await on.passed(3)

    run(main)
    told = [record.getMessage() for record in caplog.records]
    assert any("worker lost connections worker=web@1.0 count=2" in each for each in told)


# --- Draining ------------------------------------------------------------------------------------


def test_it_is_quiet_when_the_worker_has_taken_all() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage() as on:
            old, new = await on.ready(0), await on.ready(1)
            on.connect(4)
            await on.passed(4)
            on.dispatcher.feed({1: 1})
            quiet = on.dispatcher.quiet(0)
            await asyncio.sleep(0.01)
            assert not quiet.done()
            old.take()
            await quiet
            assert on.dispatcher.quiet(0).done()
            on.connect(4)
            await on.passed(8)
            assert (len(old.taken), len(new.take())) == (2, 6)

    run(main)


def test_it_is_quiet_when_others_got_what_a_worker_does_not_take() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage(timing=PATIENT) as on:
            await on.ready(0)
            new = await on.ready(1)
            on.connect(4)
            await on.passed(4)
            on.dispatcher.feed({1: 1})
            quiet = on.dispatcher.quiet(0)
            await until(lambda: new.has(4), what="the other one has all")
            await quiet

    run(main)


def test_it_is_quiet_when_the_worker_is_gone() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage() as on:
            await on.ready(0)
            on.connect()
            await on.passed(1)
            on.dispatcher.feed({})
            quiet = on.dispatcher.quiet(0)
            on.dispatcher.detach(0)
            await quiet

    run(main)


# --- Another manager -----------------------------------------------------------------------------


def test_the_next_manager_knows_what_is_open_and_loses_nothing() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage(most=8) as on:
            worker = await on.ready(0)
            on.connect(8)
            await on.passed(8)
            batch = worker.connections.take()
            worker.taken += batch
            worker.end(2)  # the last thing that the old manager may not have read
            kept = on.channels[0]
            channel = Channel.adopt(*(os.dup(fd) for fd in (kept.fileno(), kept.theirs)))
            on.dispatcher.close()

            later = Stage(on.listeners, most=8)
            later.workers = {0: worker}
            try:
                later.dispatcher.attach(0, "web@1.0", channel, ["http"])
                later.connect(4)
                await until(lambda: worker.take() or 0 in later.took, what="it answers")
                await until(lambda: worker.has(8), what="it is full")
                assert later.dispatcher.open(0) == 8
                await until(lambda: queued(later.listeners["http"]) == 2, what="two wait")
            finally:
                on.clients += later.clients
                later.dispatcher.close()

    run(main)


def test_the_next_manager_gives_to_others_what_a_worker_does_not_take() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage() as on:
            await on.ready(0)
            on.connect(3)
            await on.passed(3)
            on.channels[0].ask(1)  # to be in the way of our own question
            kept = on.channels[0]
            channel = Channel.adopt(*(os.dup(fd) for fd in (kept.fileno(), kept.theirs)))
            on.dispatcher.close()

            later = Stage(on.listeners, timing=PATIENT)
            try:
                later.dispatcher.attach(0, "web@1.0", channel, ["http"])
                other = await later.ready(1)
                await until(lambda: other.has(3), what="the other one serves")
                on.workers[0].take()  # and now it answers
                await until(lambda: 0 in later.took, what="it takes")
                assert later.dispatcher.open(0) == 0
            finally:
                later.close()

    run(main)


def test_a_connection_that_nobody_serves_any_more_holds_up_nobody() -> None:
    async def main(_: CountingSelector) -> None:
        with listening() as http, listening() as admin:
            on = Stage({"http": http, "admin": admin})
            try:
                await on.ready(0, ["http", "admin"])
                on.connect(1, "admin")
                on.connect(2)
                await on.passed(3)
                on.took.clear()
                successor = await on.ready(1)
                on.dispatcher.listen({http: "http"})
                on.dispatcher.detach(0)
                await until(lambda: successor.has(2), what="the others are served")
                on.connect(2)
                await until(lambda: successor.has(4), what="new ones, too")
                assert on.dispatcher.held == 1
            finally:
                on.close()

    run(main)
