from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
from msgspec.structs import replace

from sockmgr.api.records import EventKind, recorded
from sockmgr.api.types import Counts
from sockmgr.config.config import Config, parse
from sockmgr.config.spec import Accept, Address, Delay, Exec, Listen, Notify, Scheme
from sockmgr.fleet import snapshot
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.messages import WorkerId
from sockmgr.fleet.restoring import LENIENCE, restore
from sockmgr.fleet.snapshot import (
    Found,
    ListenerSnapshot,
    ProcessSnapshot,
    Snapshot,
    SnapshotError,
    decode,
    latest,
)
from sockmgr.log import Occurrence
from tests.fleet.story import make_spec
from tests.fleet.world import World
from tests.helpers.states import encode, record

CONFIG = parse(
    b'[listen]\nhttp = "tcp://127.0.0.1:80"\n[service.web]\ncommand = ["x"]\nlisten = ["http"]\n',
    file="sockmgr.toml",
)


def a_snapshot(config: Config = CONFIG, fleet: Fleet | None = None) -> Snapshot:
    process = ProcessSnapshot(pid=812, started=99, told=True)
    address = Address(scheme=Scheme.TCP, host="127.0.0.1", port=80)
    listen = Listen(name="http", address=address)
    processes = {WorkerId(1, 1): process}
    return Snapshot(
        boot_id="b",
        config=config,
        listeners=(ListenerSnapshot(listen=listen, inodes=(7, 8), order=(1, 0), fed=((1, 2),)),),
        services=(record("web", fleet, processes),) if fleet else (),
        events=(recorded(Occurrence(EventKind.STOPPING, {"why": "\udcff"}), "info", 1.5, 7),),
        events_since=6,
        counts={"web": Counts(crashed=2)},
        refused=1,
    )


@pytest.mark.parametrize("ready", [Notify(), Delay(seconds=2), Exec(argv=("x", "y"))])
def test_what_was_encoded_is_decoded_whole(ready: Notify | Delay | Exec) -> None:
    world = World()
    env = (("PLAIN", "a"), ("NOT_UTF_8", "\udcff\udc80"), ("LINES", "a\nb"))
    world.start(replace(make_spec("v1", workers=2), ready=ready, env=env))
    world.ready("1.1")
    world.reload(make_spec("v2"))
    before = a_snapshot(fleet=world.fleet)
    assert decode(encode(before)) == before


def test_a_restored_fleet_has_the_same_records() -> None:
    world = World()
    world.start(make_spec("v1", workers=2))
    world.ready("1.1", "1.2")
    world.reload(make_spec("v2", workers=2, accept=Accept.PER_WORKER))
    written = record("web", world.fleet, {})
    assert record("web", restore(written, world.now), {}) == written


def test_a_deadline_that_passed_without_a_manager_is_put_off() -> None:
    world = World()
    world.start(make_spec("v1", ready_timeout=5.0))
    written = record("web", world.fleet, {})
    fleet = restore(written, world.now + 60)
    assert fleet.deadline == world.now + 60 + LENIENCE


def test_every_byte_of_the_body_is_protected() -> None:
    data = encode(a_snapshot())
    for damaged in (
        data[:-1],
        data + b" ",
        data.replace(b"8000", b"8001").replace(b"http", b"httq"),
    ):
        with pytest.raises(SnapshotError, match="damaged"):
            decode(damaged)


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"sockmgr-state\n", b"sockmgr-state x 1 y\n{}"])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        decode(data)


def test_a_newer_format_is_named_and_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "VERSION", snapshot.VERSION + 1)
    newer = encode(a_snapshot())
    monkeypatch.undo()
    with pytest.raises(SnapshotError, match="newer sockmgr") as caught:
        decode(newer)
    assert "sockets are kept" in caught.value.means


def test_of_two_the_latest_whole_one_counts() -> None:
    old, new = a_snapshot(), replace(a_snapshot(), boot_id="new")
    first, second = encode(old, serial=9), encode(new, serial=10)
    assert latest([first, second]) == latest([second, first]) == Found(state=new, serial=10)
    assert latest([first, second[:-3]]) == Found(state=old, serial=9)
    assert latest([b"", b""]) is None
    with pytest.raises(SnapshotError, match="damaged"):
        latest([first[:-3], second[:-3]])


def test_a_config_that_the_third_format_tells_of_is_what_the_same_file_says_now() -> None:
    """Or an upgrade would replace the workers of each service that seems to be changed."""
    state = decode(Path(__file__).with_name("snapshot-3.json").read_bytes())
    assert state.config == parse(
        b"""
        name = "shop"

        [listen]
        http = "tcp://127.0.0.1:8000"
        api = "unix:///srv/shop/api.sock?mode=0660"

        [service.web]
        command = ["granian", "--interface", "asgi", "apps:asgi"]
        listen = ["http"]
        inherit_env = false

        [service.api]
        app = "apps:wsgi"
        listen = ["api"]
        workers = 2
        preload = true
        accept = "dispatch"
        inherit_env = false

        [service.api.http]
        threads = 4

        [service.mail]
        command = ["sleep", "inf"]
        listen = []
        inherit_env = false
        """,
        file="sockmgr.toml",
    )


def test_in_the_second_format_a_rescue_is_a_worker_on_another_queue_than_its_generation() -> None:
    state = decode(Path(__file__).with_name("snapshot-2.json").read_bytes())
    [service] = state.services
    workers = {str(worker.id): worker for worker in restore(service, 100.0).workers()}
    assert [id for id, worker in workers.items() if worker.rescue] == ["2.2"]
    assert [worker.lease for worker in workers.values()] == [0, 0, 1, 0]
    assert service.generations[0].spec.accept is Accept.SHARED


def test_the_first_format_is_still_read() -> None:
    state = decode(Path(__file__).with_name("snapshot-1.json").read_bytes())
    [service] = state.services
    fleet = restore(service, 100.0)
    assert [str(worker.id) for worker in fleet.workers()] == ["1.1", "1.2", "2.1", "2.2"]
    assert fleet.current is not None
    assert fleet.trial is not None
    assert (fleet.current.number, fleet.trial.number, fleet.current.deadline) == (1, 2, math.inf)
    assert service.generations[0].workers[0].process == ProcessSnapshot(
        pid=812, started=99, told=True
    )


@pytest.mark.parametrize(
    "body", [b'{"services":[{"generations":[{"workers":[7]}]}]}', b"[" * 100_000]
)
def test_a_state_of_any_other_shape_cannot_be_read_and_that_is_all(body: bytes) -> None:
    for version in range(1, snapshot.VERSION + 1):
        checksum = hashlib.sha256(body).hexdigest().encode()
        with pytest.raises(SnapshotError):
            decode(b"sockmgr-state %d 1 %s\n%s" % (version, checksum, body))


def test_a_state_with_two_workers_in_one_slot_cannot_be_read() -> None:
    world = World()
    world.start(make_spec("v1", workers=1))
    snapped = a_snapshot(fleet=world.fleet)
    [service] = snapped.services
    generations = tuple(replace(each, workers=each.workers * 2) for each in service.generations)
    assert generations[0].workers
    forged = replace(snapped, services=(replace(service, generations=generations),))
    with pytest.raises(SnapshotError, match="have one slot"):
        decode(encode(forged))


@pytest.mark.parametrize("wanted", [-1, 10_001, 2**31 - 1])
def test_a_state_that_wants_more_workers_than_a_config_can_is_not_obeyed(wanted: int) -> None:
    world = World()
    world.start(make_spec("v1"))
    snapped = a_snapshot(fleet=world.fleet)
    [service] = snapped.services
    generations = tuple(replace(each, wanted=wanted) for each in service.generations)
    forged = replace(snapped, services=(replace(service, generations=generations),))
    with pytest.raises(SnapshotError, match="wanted"):
        decode(encode(forged))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"slot":1', '"slot":4294967295', "slot"),
        ('"slot":1', '"slot":-1', "slot"),
        ('"lease":0', '"lease":4294967295', "lease"),
        ('"number":1', '"number":0', "number"),
        ('"number":1', '"number":2', "two generations have one number"),
        ('"current":1', '"current":2', "generation 1 is current"),
        ('"trial":2', '"trial":1', "generation 1 is current"),
        ('"trial":2', '"trial":0', "generation 2 is booting"),
        ('"phase":"booting"', '"phase":"gone"', "generation 2 is gone"),
        ('"amount":1', '"amount":1' + "0" * 400, "no number of 64 bits"),
        ('"start_concurrency":1', '"start_concurrency":0', "generation 1 may start nobody"),
    ],
)
def test_a_state_that_no_fleet_was_in_cannot_be_read(old: str, new: str, why: str) -> None:
    world = World()
    world.start(make_spec("v1", start_concurrency=1))
    world.ready("1.1")
    world.reload(make_spec("v2"))
    head, _, body = encode(a_snapshot(fleet=world.fleet)).decode().partition("\n")
    assert old in body
    forged = body.replace(old, new, 1).encode()
    head = f"{head.rpartition(' ')[0]} {hashlib.sha256(forged).hexdigest()}\n"
    with pytest.raises(SnapshotError, match=why):
        decode(head.encode() + forged)
