"""A manager that only answers what api.varlink.METHODS has; what and when, the test decides."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from sockmgr import __version__
from sockmgr.api.types import (
    Change,
    Counts,
    DrainingGeneration,
    Effect,
    JournalPlace,
    Kind,
    ListenerStatus,
    LogLine,
    ManagerStatus,
    Plan,
    Progress,
    Receipt,
    RolloutStatus,
    ServiceStatus,
    Status,
    Verdict,
    WorkerStatus,
)
from sockmgr.api.varlink import Health, PastGeneration
from sockmgr.errors import ConfigError
from sockmgr.log import Occurrence
from sockmgr.manager.control.connection import Limits
from sockmgr.manager.control.server import ControlServer
from sockmgr.manager.logs.events import EventFollower, EventLog
from sockmgr.manager.logs.ring import Follower, Ring
from sockmgr.manager.service.verdicts import ignore_progress


def a_worker(slot: int, generation: int, state: str) -> WorkerStatus:
    pid = 1000 * generation + slot
    return WorkerStatus(
        slot=slot,
        generation=generation,
        pid=pid,
        state=state,
        rss=50_000_000,
        age=3.5,
        lease=slot + 3,
    )


def a_status(workers: int = 4, choice: str = "one queue", config: str | None = None) -> Status:
    trial = RolloutStatus(generation=9, phase="booting", ready=1, wanted=4, deadline=20.0)
    fleet = [a_worker(slot, 8, "ready") for slot in range(workers)]
    fleet += [a_worker(slot, 7, "draining") for slot in range(3)]
    return Status(
        manager=ManagerStatus(pid=812, version="0.1.0", started=1.5e9, refused=2, config=config),
        listeners={
            "http": ListenerStatus(
                address="tcp://127.0.0.1:8000",
                queue=2,
                backlog=4096,
                cutover="steered",
                choice=choice,
            )
        },
        services={
            "web": ServiceStatus(
                generation=8,
                state="serving",
                workers=tuple(fleet),
                wanted=workers,
                counts=Counts(committed=7, aborted=1, crashed=3),
            ),
            "job": ServiceStatus(generation=8, state="rolling", workers=(), rollout=trial),
        },
    )


def a_verdict(**changes: object) -> Verdict:
    receipt = Receipt(
        queue_peak=3, overflows=0, drained=1, killed=0, draining=3, cutover="steered",
        draining_generations=(DrainingGeneration(generation=7, workers=3),),
    )  # fmt: skip
    fields: dict[str, object] = {
        "service": "web", "verdict": "committed", "generation": 8, "seconds": 2.1, "reason": "",
        "receipt": receipt, "kept": 8, "output": (),
    }  # fmt: skip
    return Verdict(**{**fields, **changes})  # type: ignore[arg-type]


ABORTED = a_verdict(
    verdict="aborted", seconds=1.2, reason="worker 8.0 exited with status 3", kept=7,
    output=("Traceback", "ImportError: no shop"),
)  # fmt: skip


def progress(ready: int, phase: str = "booting", message: str = "", step: int = 0) -> Progress:
    return Progress(
        service="web", generation=8, phase=phase, ready=ready, wanted=4, seconds=ready / 2,
        message=message, step=step,
    )  # fmt: skip


A_PLAN = Plan(
    applies=True,
    changes=(
        Change(
            kind=Kind.CHANGE, path="service.web.workers", effect=Effect.SCALE, old="4", new="6",
            text="~ service.web.workers 4 → 6: needs no new workers",
        ),
        Change(
            kind=Kind.ADD, path="service.job", effect=Effect.START,
            text="+ service.job: 1 worker started",
        ),
    ),
)  # fmt: skip


def _at_once(what: Callable[[], None]) -> None:
    what()


def without_sizes(status: Status) -> Status:
    services = {
        name: replace(one, workers=tuple(replace(worker, rss=0) for worker in one.workers))
        for name, one in status.services.items()
    }
    return replace(status, services=services)


def happen(history: EventLog, kind: str, **fields: object) -> None:
    """Have a history take a record of the manager."""
    occurrence = Occurrence(kind, fields)
    history.emit(logging.LogRecord("sockmgr", logging.INFO, "", 0, occurrence, (), None))


class FakeManager:
    """Answers at once, unless its gates are closed."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Semaphore(0)
        self.ended = asyncio.Semaphore(0)
        self.reloads: list[tuple[str, ...]] = []
        self.rolled_back: list[tuple[str, int | None]] = []
        self.past: tuple[PastGeneration, ...] = ()
        self.scaled: list[tuple[str, int, bool]] = []
        self.stopped: list[bool] = []
        self.planned: list[tuple[str | None, str]] = []
        self.answer = A_PLAN
        self.news = [progress(ready) for ready in range(5)]
        self.verdicts = [a_verdict()]
        self.error: Exception | None = None
        self.workers = 4
        self.choice = "one queue"
        self.config: str | None = None
        self.ring = Ring(lines_max=100)
        self.place: JournalPlace | None = None
        self.log = EventLog(limit=100)
        self.restarted: list[str] = []
        self.upgraded = 0
        self.decided: list[tuple[str, str, str]] = []
        self.asked = 0  # for the status
        self.soon: Callable[..., object] = _at_once  # how to reach it from another thread

    def counted_status(self, *, sizes: bool = True) -> Status:
        self.asked += 1
        self._fail()
        status = a_status(self.workers, self.choice, self.config)
        return status if sizes else without_sizes(status)

    together = False  # whether the last reload was to be
    canary: tuple[object, ...] = ()  # of the last reload: its shares, seconds and hold

    async def reload(
        self,
        services: tuple[str, ...] = (),
        progress: Callable[[Progress], None] = ignore_progress,
        together: bool = False,
        canary: tuple[int, ...] | None = None,
        seconds: float | None = None,
        hold: bool | None = None,
    ) -> list[Verdict]:
        self.reloads.append(services)
        self.together, self.canary = together, (canary, seconds, hold)
        self.began.release()
        for news in self.news:
            progress(news)
        await self.gate.wait()
        self.ended.release()
        self._fail()
        if "nobody" in services:
            raise ConfigError("there is no service nobody", means="nothing was changed", do="look")
        return self.verdicts

    async def rollback(
        self,
        service: str = "",
        to: int | None = None,
        progress: Callable[[Progress], None] = ignore_progress,
    ) -> list[Verdict]:
        self.rolled_back.append((service, to))
        self._fail()
        progress(self.news[0])
        return self.verdicts

    def history(self, service: str = "") -> tuple[PastGeneration, ...]:
        self._fail()
        return tuple(each for each in self.past if service in ("", each.service))

    async def promote(self, service: str = "") -> Verdict:
        self._fail()
        self.decided.append(("promote", service, ""))
        return self.verdicts[0]

    async def abort(self, service: str = "", reason: str = "") -> Verdict:
        self._fail()
        self.decided.append(("abort", service, reason))
        return self.verdicts[0]

    async def scale(self, service: str, workers: int, relative: bool = False) -> int:
        self.scaled.append((service, workers, relative))
        self._fail()
        return 4 + workers if relative else workers

    async def stop(self, now: bool = False) -> None:
        self.stopped.append(now)
        self.began.release()
        await self.gate.wait()

    def health(self, service: str = "", ready: bool = False) -> Health:
        self._fail()
        return Health(
            healthy=not ready, line=f"{service or 'all'} {'not ready' if ready else 'up'}"
        )

    def plan(self, text: str | None = None, file: str = "config") -> Plan:
        self._fail()
        self.planned.append((text, file))
        return self.answer

    def logs(self, service: str = "", lines: int = 100) -> Follower | JournalPlace:
        self._fail()
        return self.place or Follower(self.ring, service, lines)

    async def restart_worker(self, worker: str) -> str:
        self.restarted.append(worker)
        self.began.release()
        await self.gate.wait()
        self._fail()
        return "web@8.9"

    async def upgrade(self) -> str:
        self.upgraded += 1
        self._fail()
        return __version__

    def events(
        self, service: str = "", after: int | None = None, last: int | None = None
    ) -> EventFollower:
        self._fail()
        return EventFollower(self.log, service, after, last)

    def happen(self, *hows: str, service: str = "web") -> None:
        """Have workers of `service` end, in these ways."""
        for how in hows:
            self.record("worker ended", worker=f"{service}@8.1", how=how, pid=8001)

    def record(self, message: str, **fields: object) -> None:
        """Have anything happen."""
        self.soon(lambda: happen(self.log, message, **fields))

    def tell(self, *messages: str, service: str = "web") -> None:
        """Have a worker of `service` print these lines."""
        for message in messages:
            self.ring.add(
                LogLine(
                    time=1.5,
                    level="info",
                    source=f"{service}@8.1",
                    service=service,
                    event="",
                    message=message,
                )
            )

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@contextlib.asynccontextmanager
async def served(
    path: Path, manager: FakeManager, limits: Limits | None = None
) -> AsyncIterator[ControlServer]:
    """Answer at `path` in this event loop."""
    server = ControlServer(path, manager, limits=limits)
    await server.open()
    try:
        yield server
    finally:
        await server.close()


@contextlib.contextmanager
def serving(path: Path, **knobs: object) -> Iterator[FakeManager]:
    """Answer at `path` from another thread, for callers that block; knobs are attributes."""
    ready = threading.Event()
    found: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, FakeManager]] = []

    async def main() -> None:
        manager, stop = FakeManager(), asyncio.Event()
        for name, value in knobs.items():
            setattr(manager, name, value)
        async with served(path, manager):
            loop = asyncio.get_running_loop()
            manager.soon = loop.call_soon_threadsafe
            found.append((loop, stop, manager))
            ready.set()
            await stop.wait()
            manager.gate.set()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(10), "the server did not start"
    loop, stop, manager = found[0]
    try:
        yield manager
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
