"""What a manager finds wrong with itself, so that its watchdog is not fed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import socket
from collections.abc import Callable

from sockmgr.config.spec import Spec
from sockmgr.fleet.messages import Start
from sockmgr.manager.health import LATE, Health
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.journal import worker_output
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.service.service import Service
from sockmgr.manager.workers.context import WorkerContext
from tests.helpers.listeners import tcp

SPEC = Spec(service="web", argv=("true",), executable="/bin/true", cwd="/", ready_timeout=60)


class Room:
    """What a manager holds: one listener, and one service whose task waits for facts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: asyncio.TaskGroup) -> None:
        listen = tcp()
        self.listeners = Listeners(lambda _: None)
        self.listeners.open([listen])
        self.listener = self.listeners.at(listen.address)
        sink = Sink(as_json=False)
        context = WorkerContext(
            loop=loop,
            sink=sink,
            output=functools.partial(worker_output, sink, loop),
            notify_address=str,
            can_restore_priority=False,
            helpers=lambda: (),
        )
        self.service = Service("web", context, tasks, self.listeners.at, lambda: None,
                               lambda *_: True)  # fmt: skip
        self.health = Health(lambda: [listen], self.listeners, {"web": self.service})
        self.task = tasks.create_task(self.service.run())
        self.health.attend(self.service, self.task)

    def close(self) -> None:
        self.task.cancel()
        self.listeners.close_unused(())


def in_a_room(claim: Callable[[Room, float], None]) -> None:
    """Check a claim on a room at an instant."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            with contextlib.closing(Room(loop, tasks)) as room:
                claim(room, loop.time())

    asyncio.run(main())


def test_nothing_is_wrong_with_a_manager_that_waits() -> None:
    def claim(room: Room, _: float) -> None:
        assert room.health.flaw() == ""
        assert room.health.busy_until() == -math.inf

    in_a_room(claim)


def test_a_listener_that_does_not_listen_is_wrong_until_it_is_mended() -> None:
    def claim(room: Room, _: float) -> None:
        room.listener.lease(1)
        room.listener.queues[1].shutdown(socket.SHUT_RDWR)
        assert room.health.flaw() == "listener http does not listen"
        room.listener.inspect()
        assert room.health.flaw() == ""

    in_a_room(claim)


def test_a_fleet_that_is_not_asked_long_after_its_deadline_is_wrong() -> None:
    def claim(room: Room, now: float) -> None:
        started_at = now - SPEC.ready_timeout  # its worker's deadline is now
        room.service.fleet.handle(Start(spec=SPEC), started_at)
        assert room.health.flaw() == ""
        room.service.fleet = type(room.service.fleet)()
        room.service.fleet.handle(Start(spec=SPEC), started_at - LATE - 1)
        assert room.health.flaw() == "service web missed its deadline by 6 s"

    in_a_room(claim)


def test_a_service_whose_task_has_ended_is_wrong() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            with contextlib.closing(Room(asyncio.get_running_loop(), tasks)) as room:
                room.task.cancel()
                await asyncio.wait([room.task])
                assert room.health.flaw() == "nothing takes the facts of service web"

    asyncio.run(main())
