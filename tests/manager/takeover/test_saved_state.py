"""What is saved for the next manager: in which order, and no more than what has changed."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from sockmgr.config.config import Config
from sockmgr.fleet import pieces
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.messages import Spawn, Start, Tick, WorkerExited, WorkerId, WorkerReady
from sockmgr.fleet.snapshot import ProcessSnapshot, decode, sealed
from sockmgr.manager.logs.events import EventLog
from sockmgr.manager.takeover.saved_state import Present, SavedState
from sockmgr.manager.takeover.state import StateMemory
from tests.fleet.story import make_spec
from tests.helpers.listeners import opened, tcp
from tests.helpers.states import record
from tests.helpers.work import calls


@dataclass
class Place:
    """The store and the memory of a state, both pretended; `log` is what was done to them."""

    log: list[str] = field(default_factory=list)
    fds: tuple[int, ...] = (3, 4)
    state: bytes = b""
    is_full: bool = False
    cannot_write: bool = False

    def keep(self, name: str, _fds: tuple[int, ...]) -> bool:
        self.log.append(f"keep {name}")
        return not self.is_full

    def forget(self, name: str) -> None:
        self.log.append(f"forget {name}")

    def write(self, state: bytes) -> None:
        if self.cannot_write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.state = state
        self.log.append("write")

    def done(self) -> list[str]:
        done, self.log = self.log, []
        return done


class Web:
    """A service whose processes are pretended, and the state that is saved of it."""

    def __init__(self, workers: int) -> None:
        self.name, self.unsaved, self.addresses = "web", True, frozenset[Any]()
        self.fleet, self.now, self.pids = Fleet(), 100.0, 1000
        self.processes: Any = SimpleNamespace(
            running={}, fresh=set(), changed=set(), moves=SimpleNamespace(descriptors={}),
            figures=SimpleNamespace(ended={}), comparing=SimpleNamespace(course=None),
        )  # fmt: skip
        self.past: Any = SimpleNamespace(history=SimpleNamespace(record=b""))
        self.hooks: Any = SimpleNamespace(descriptors={}, written=None)
        self.place = Place()
        place: Any = self.place
        self.saved = SavedState(place, place, {})
        services = SimpleNamespace(
            config=Config(name="", listen=(), services=()), newest=None, by_name={"web": self}
        )
        self.listeners: list[Any] = []
        others = SimpleNamespace(all=self.listeners), EventLog(), SimpleNamespace(written=None)
        everything: Any = services, *others
        self.present = Present(*everything)
        self.tell(Start(spec=make_spec("v1", workers=workers, start_concurrency=workers)))
        while self.fleet.deadline <= self.now:
            self.tell(Tick())

    def tell(self, fact: Any) -> None:
        if isinstance(fact, WorkerExited):
            del self.processes.running[fact.worker]
            self.processes.changed.add(fact.worker)
        for action in self.fleet.handle(fact, self.now):
            if isinstance(action, Spawn):
                self.spawn(action.worker)
        self.unsaved = True

    def spawn(self, id: WorkerId) -> None:
        self.pids += 1
        self.processes.fresh.add(id)
        self.processes.changed.add(id)
        self.processes.running[id] = SimpleNamespace(
            name=f"web@{id}", pid=self.pids, process=SimpleNamespace(pid=self.pids, started=7),
            ready=False, heard=False, stopping=False, stopped_descendants=(), channel=None, ends=(),
            descriptors={"pidfd": 8, "output": 9},
        )  # fmt: skip

    def update(self) -> list[str]:
        self.saved.update(self.present, {})
        return self.place.done()

    def written(self) -> Any:
        return decode(sealed(self.place.state, serial=1)).services[0]


ONE = WorkerId(1, 1)


def test_descriptors_are_stored_before_the_state_names_them() -> None:
    # And the memfds of the state last: a store that has them has all.
    assert Web(1).update() == ["keep web@1.1/pidfd", "keep web@1.1/output", "keep @state", "write"]


def test_descriptors_are_forgotten_after_the_state_names_them_no_more() -> None:
    web = Web(1)
    web.update()
    web.tell(WorkerExited(worker=ONE, status=1))
    assert web.update() == ["write", "forget web@1.1/pidfd", "forget web@1.1/output"]
    assert web.update() == []


def test_the_queue_that_takes_the_place_of_another_does_not_take_its_name_from_it_yet() -> None:
    web = Web(1)
    with opened(tcp()) as listener:
        listener.lease(1)
        web.listeners.append(listener)
        web.addresses = frozenset({listener.listen.address})
        assert {"keep http#0", "keep http#1"} <= set(web.update())
        listener.renew(1)
        web.unsaved = True
        assert web.update() == ["keep http#1'", "write", "forget http#1"]
        web.unsaved = True
        assert web.update() == ["keep http#1", "forget http#1'"]


def test_a_listener_that_is_closed_leaves_its_name_to_one_at_another_address() -> None:
    web = Web(1)
    with opened(tcp()) as old, opened(tcp()) as new:
        assert old.listen.name == new.listen.name
        web.listeners.append(old)
        assert "keep http#0" in web.update()
        web.listeners[:] = [new]
        assert web.update() == ["keep http#0'", "write", "forget http#0"]


def test_of_two_memories_the_one_with_the_older_state_is_written_over() -> None:
    memory = StateMemory([], 0)
    written = [memory.write(b'{"n":%d}' % n) or memory.latest for n in range(3)]
    assert written[0] == written[2] != written[1]
    assert set(written) == set(memory.fds)
    body = [os.pread(fd, 1 << 16, 0).partition(b"\n")[2] for fd in written]
    assert body == [b'{"n":2}', b'{"n":1}', b'{"n":2}']
    memory.close()


@pytest.mark.parametrize("is_full", [True, False])
def test_a_listener_that_has_the_name_of_one_that_was_closed_keeps_its_queue(
    *, is_full: bool
) -> None:
    web = Web(1)
    with opened(tcp()) as first, opened(tcp("127.0.0.2")) as second:
        web.listeners.append(first)
        web.addresses = frozenset({first.listen.address, second.listen.address})
        web.place.is_full = is_full
        web.update()
        web.place.is_full, web.listeners[:] = False, [second]
        web.unsaved = True
        done = web.update()
        kept = "http#0" if is_full else "http#0'"
        assert f"keep {kept}" in done
        assert ("forget http#0" in done) is not is_full
        assert f"forget {kept}" not in done


def test_who_was_just_started_is_stored_though_the_state_can_wait() -> None:
    web = Web(2)
    web.place.done()
    assert web.saved.store_spawned(web)  # type: ignore[arg-type]
    done = web.place.done()
    assert sorted(done) == sorted(
        f"keep web@1.{n}/{what}" for n in (1, 2) for what in ("pidfd", "output")
    )
    assert web.update() == ["keep @state", "write"]


def test_who_was_stored_and_ended_before_the_state_named_it_is_forgotten() -> None:
    web = Web(1)
    web.tell(WorkerReady(worker=ONE))
    web.update()
    fresh = WorkerId(1, 9)
    web.spawn(fresh)
    assert web.saved.store_spawned(web)  # type: ignore[arg-type]
    del web.processes.running[fresh]
    done = web.update()
    assert done[-2:] == ["forget web@1.9/pidfd", "forget web@1.9/output"]


def test_a_move_queue_that_was_stored_and_ended_before_the_state_named_it_is_forgotten() -> None:
    web = Web(1)
    web.update()
    one, other = socket.socketpair()
    with one, other:
        web.processes.moves.descriptors = {"web@moves-1/give": one.fileno()}
        assert web.saved.store_spawned(web)  # type: ignore[arg-type]
    web.processes.moves.descriptors = {}
    web.unsaved = True
    assert "forget web@moves-1/give" in web.update()


def test_the_state_cannot_wait_if_it_gives_the_name_of_a_new_worker_to_one_that_has_ended() -> None:
    web = Web(1)
    web.tell(WorkerReady(worker=ONE))
    web.update()
    web.now += 60
    web.tell(WorkerExited(worker=ONE, status=1))
    assert web.processes.fresh == {ONE}
    assert not web.saved.store_spawned(web)  # type: ignore[arg-type]
    web.update()
    assert web.written().generations[0].workers[0].process.pid == web.pids


def test_the_state_is_what_the_records_are_together_with_the_processes() -> None:
    web = Web(3)
    web.tell(WorkerReady(worker=ONE))
    web.update()
    web.processes.running[ONE].stopping = web.processes.running[ONE].ready = True
    web.processes.changed.add(ONE)
    web.unsaved = True
    web.update()
    told = {
        id: ProcessSnapshot(pid=each.pid, started=7, told=each.stopping, ready=each.ready)
        for id, each in web.processes.running.items()
    }
    assert web.written() == record("web", web.fleet, told)
    assert web.written().generations[0].workers[0].process.told


def test_of_many_workers_only_those_that_have_changed_are_written_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    web, encoded = Web(200), list[WorkerId]()
    web.update()
    encode = pieces.worker_record

    def spy(worker: Any, process: Any) -> Any:
        encoded.append(worker.id)
        return encode(worker, process)

    monkeypatch.setattr(pieces, "worker_record", spy)
    web.tell(WorkerReady(worker=ONE))
    assert web.update() == ["write"]
    assert encoded == [ONE]
    assert len(web.written().generations[0].workers) == 200


def work_of_a_save(workers: int) -> int:
    """Return how many calls it takes to save that one of so many workers has become ready."""
    web = Web(workers)
    web.update()
    web.tell(WorkerReady(worker=ONE))
    return calls(web.update)


def test_a_save_after_one_fact_costs_the_same_with_many_workers() -> None:
    assert work_of_a_save(500) <= work_of_a_save(50) < 300


def test_what_the_store_could_not_take_it_is_given_again() -> None:
    web = Web(1)
    web.place.is_full = True
    web.update()
    assert not web.saved.is_complete
    web.place.is_full = False
    assert web.update() == ["keep web@1.1/pidfd", "keep web@1.1/output", "keep @state"]
    assert web.saved.is_complete
    assert web.update() == []


def test_what_a_state_names_stays_in_the_store_until_another_could_be_written() -> None:
    web = Web(1)
    web.update()
    web.tell(WorkerExited(worker=ONE, status=1))
    web.place.cannot_write = True
    assert web.update() == []
    assert not web.saved.is_complete
    web.place.cannot_write = False
    wrote, *forgot = web.update()
    assert wrote == "write"
    assert sorted(forgot) == ["forget web@1.1/output", "forget web@1.1/pidfd"]
    assert web.saved.is_complete


def test_a_service_that_comes_under_the_name_of_one_that_ended_has_nothing_of_it() -> None:
    web, other = Web(3), Web(1)
    web.update()
    web.present.services.by_name["web"] = other  # type: ignore[assignment]
    done = web.update()
    assert "forget web@1.2/pidfd" in done
    assert "forget web@1.1/pidfd" not in done
    assert len(web.written().generations[0].workers) == 1
