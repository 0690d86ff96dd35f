"""What a manager finds wrong with itself, so that its watchdog is not fed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from sockmgr.config.spec import Spec
from sockmgr.fleet.messages import Fact, Start, WorkerExited, WorkerId, WorkerReady
from sockmgr.manager.health import LATE, Health
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.journal import worker_output
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.service.owners import Owners
from sockmgr.manager.service.service import Service
from sockmgr.manager.workers.boot_priority import Boots
from sockmgr.manager.workers.context import WorkerContext
from sockmgr.manager.workers.family import Family
from sockmgr.manager.workers.lookout import Lookout
from tests.helpers.dispatching import a_dispatcher
from tests.helpers.listeners import tcp

SPEC = Spec(service="web", argv=("true",), executable="/bin/true", cwd="/", ready_timeout=60)


class Room:
    """What a manager holds: one listener, and one service whose task waits for facts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: asyncio.TaskGroup) -> None:
        listen = tcp()
        self.listeners = Listeners(lambda _: None)
        self.listeners.open([listen])
        self.listener = self.listeners.at(listen.address)
        sink = Sink()
        context = WorkerContext(
            loop=loop,
            sink=sink,
            output=functools.partial(worker_output, sink, loop),
            notify_address=str,
            boots=Boots(loop, can_lower=False),
            family=Family(),
            lookout=Lookout(loop),
            dispatcher=a_dispatcher(),
        )
        alone: Any = SimpleNamespace(owners=Owners({}))
        self.service, self.another = (
            Service(name, context, tasks, self.listeners.at, lambda: None, alone)
            for name in ("web", "new")
        )
        self.services = {"web": self.service}
        self.health = Health(lambda: [listen], self.listeners, self.services)
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


# --- What probes are told ------------------------------------------------------------------------


def told(room: Room, *facts: Fact) -> None:
    for fact in facts:
        room.service.fleet.handle(fact, 1.0)


def test_a_service_is_up_while_a_worker_is_ready_and_wants_traffic_once_all_were() -> None:
    def claim(room: Room, _: float) -> None:
        assert room.health.answer("", ready=False).line == "down: web 0/0"
        told(room, Start(spec=replace(SPEC, workers=2)), WorkerReady(worker=WorkerId(1, 1)))
        assert room.health.answer("", ready=False).healthy
        assert not room.health.answer("", ready=True).healthy
        assert not room.health.answer("web", ready=True).healthy
        told(room, WorkerReady(worker=WorkerId(1, 2)))
        assert room.health.answer("", ready=True).line == "ready: web 2/2"
        told(room, WorkerExited(worker=WorkerId(1, 1), status=-9))
        assert room.health.answer("web", ready=True).line == "ready: web 1/2"
        told(room, WorkerExited(worker=WorkerId(1, 2), status=-9))
        assert room.health.answer("", ready=False).line == "down: web 0/2"
        assert room.health.answer("", ready=True).line == "not ready: web 0/2"

    in_a_room(claim)


def test_a_manager_that_is_to_stop_wants_no_traffic_though_it_serves_on() -> None:
    def claim(room: Room, now: float) -> None:
        told(room, Start(spec=SPEC), WorkerReady(worker=WorkerId(1, 1)))
        assert room.health.is_ready
        room.health.is_stopping, room.health.drains_at = True, now + 100
        assert not room.health.is_ready
        assert room.health.answer("web", ready=True).line == "not ready (stopping): web 1/1"
        assert room.health.answer("web", ready=False).line == "up (stopping): web 1/1"
        assert room.health.busy_until() == now + 100 + SPEC.drain_timeout

    in_a_room(claim)


def test_a_service_that_a_reload_has_added_does_not_make_the_others_unready() -> None:
    def claim(room: Room, _: float) -> None:
        told(room, Start(spec=SPEC), WorkerReady(worker=WorkerId(1, 1)))
        assert room.health.is_ready
        room.services["new"] = room.another
        assert room.health.is_ready
        assert not room.health.answer("new", ready=True).healthy

    in_a_room(claim)
