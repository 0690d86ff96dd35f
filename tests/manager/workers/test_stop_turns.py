"""A worker is told to stop when the requests that are coming are answered, and not much later."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import pytest

from sockmgr.kernel import unanswered
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.workers import stop_turns
from sockmgr.manager.workers.slices import Slices
from sockmgr.manager.workers.stop_turns import PATIENCE, StopTurns, Turn
from tests.helpers.listeners import connect, opened, tcp


class Told:
    """What was told, when: seconds since the beginning."""

    def __init__(self, listener: Listener | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.turns = StopTurns(self.loop, Slices())
        self.began, self.at = self.loop.time(), list[float]()
        self._listeners = (listener,) if listener else ()
        self.done = asyncio.Event()

    def order(self, workers: int = 1, *, at_once: bool = False) -> None:
        for _ in range(workers):
            tell = partial(self._tell, workers)
            turn = Turn(tell=tell, listeners=self._listeners, at_once=at_once)
            self.turns.add(turn, of=workers)

    def _tell(self, of: int) -> None:
        self.at.append(self.loop.time() - self.began)
        if len(self.at) == of:
            self.done.set()


def accept(listener: Listener) -> socket.socket:
    return listener.queues[0].accept()[0]


def test_half_a_request_is_waited_for_until_its_answer() -> None:
    async def scenario(listener: Listener) -> None:
        with connect(listener) as client, accept(listener) as server:
            client.send(b"GET / HT")
            told = Told(listener)
            told.order(2, at_once=True)
            for _ in range(5):
                await asyncio.sleep(0.1)
                client.send(b"more")
            assert not told.at
            server.send(b"HTTP/1.1 200 OK")
            await told.done.wait()
            assert len(told.at) == 2

    with opened(tcp()) as listener:
        asyncio.run(asyncio.wait_for(scenario(listener), 30))


def test_nobody_waits_for_a_client_that_is_silent_or_never_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(listener: Listener) -> None:
        with connect(listener) as client, accept(listener):
            told = Told(listener)
            told.order()
            await told.done.wait()  # it has sent nothing: SILENT is over
            drip = asyncio.create_task(send_on(client))
            again = Told(listener)
            await asyncio.sleep(0.05)
            again.order()
            await again.done.wait()
            drip.cancel()
            assert again.at[0] >= PATIENCE / 2

    async def send_on(client: socket.socket) -> None:
        while True:
            client.send(b"x")
            await asyncio.sleep(0.02)

    monkeypatch.setattr(stop_turns, "SILENT", 200)
    with opened(tcp()) as listener:
        asyncio.run(asyncio.wait_for(scenario(listener), 30))


def test_without_listeners_or_without_sock_diag_all_are_told_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    async def scenario(listener: Listener) -> None:
        for each in (None, listener):
            told = Told(each)
            told.order(3)
            await told.done.wait()
            first, second, third = told.at
            assert first < second < third

    monkeypatch.setattr(unanswered, "to_port", refused)
    with opened(tcp()) as listener:
        asyncio.run(asyncio.wait_for(scenario(listener), 30))
