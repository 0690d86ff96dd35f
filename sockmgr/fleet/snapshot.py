"""What the next manager must know of this one, as bytes: the records of every fleet, who is who.

Pure: descriptors are not in it, but the numbers by which they are known again (inodes, pids with
their start times). An older format is read as well; of a newer one, or of a damaged one, nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from sockmgr.api.types import Counts, Event
from sockmgr.config.config import Config
from sockmgr.config.spec import Listen, Spec
from sockmgr.config.values import MAX_WORKERS
from sockmgr.errors import SockmgrError
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.messages import Phase, Reload, State, WorkerId

VERSION = 4
LENIENCE = 2.0  # seconds that a deadline is put off if it passed while there was no manager

_MAGIC = b"sockmgr-state"


class SnapshotError(SockmgrError):
    """These bytes are no snapshot that this version can read."""


class ListenerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One listener: the inodes of its queues by lease, and the order the kernel has them in.

    `order` are leases, in the order of the kernel's indices; empty without steering, and then
    `why_overlap` says why. `fed` are lease and weight. `owns_path`: a unix path that we bound, to
    be removed with the listener. `blocking` are the leases whose workers want no O_NONBLOCK, which
    systemd sets when it passes their queues to another manager. `refusing`: it is to be closed, and
    nobody can come any more. `ending`: nobody can come any more because all was to stop.
    """

    listen: Listen
    inodes: tuple[int, ...]
    order: tuple[int, ...] = ()
    fed: tuple[tuple[int, int], ...] = ()
    why_overlap: str = ""
    owns_path: bool = False
    blocking: tuple[int, ...] = ()
    refusing: bool = False
    ending: bool = False


class ProcessSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's process: `started` is field 22 of proc_pid_stat(5), which tells a pid's reuse.

    `told`: it was sent its stop signal. `channel`: the inodes of both ends, ours first.
    `told_others`: pid and start of the descendants that were told as well, since it has ended.
    """

    pid: int
    started: int
    told: bool = False
    channel: tuple[int, ...] = ()
    told_others: tuple[tuple[int, int], ...] = ()


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as its fleet knows it; without a process it was never started. None is never.

    `rescue`: it was started to empty a queue that others left. `leaving`: it drains unasked.
    `finishing`: it drains, and was told to end now.
    """

    slot: int
    lease: int
    since: float
    deadline: float | None
    state: State
    ready_at: float | None
    recycle: str = ""
    hung: bool = False
    rescue: bool = False
    leaving: bool = False
    finishing: bool = False
    process: ProcessSnapshot | None = None


class GenerationSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A generation as its fleet knows it, without those who wait for its verdict.

    Without a `lease` each of its workers has its own.
    """

    number: int
    spec: Spec
    lease: int | None
    wanted: Annotated[int, msgspec.Meta(ge=0, le=MAX_WORKERS)]
    since: float
    deadline: float | None
    phase: Phase
    workers: tuple[WorkerSnapshot, ...]
    failed_starts: int = 0
    failures: int = 0
    not_before: float | None = None
    fault: str = ""
    culprit: WorkerId | None = None
    rolling: bool = False


class ServiceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One fleet; `current` and `trial` are numbers of generations, 0 for none."""

    name: str
    last: int
    current: int
    trial: int
    served: bool
    generations: tuple[GenerationSnapshot, ...]
    fed: tuple[tuple[int, int], ...]
    unquiet: tuple[tuple[int, float], ...]
    pending: Spec | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One manager. Instants are of CLOCK_MONOTONIC, so they mean nothing in another boot.

    `events` are all that have a higher id than `events_since`; `counts` (of each service) and
    `refused` are what was counted until now.
    """

    boot_id: str
    config: Config
    listeners: tuple[ListenerSnapshot, ...]
    services: tuple[ServiceSnapshot, ...]
    events: tuple[Event, ...] = ()
    events_since: int = 0
    counts: dict[str, Counts] = {}
    refused: int = 0


# --- Bytes ---------------------------------------------------------------------------------------


def encode(snapshot: Snapshot, *, serial: int = 0) -> bytes:
    """Return one line that tells version, serial number and checksum, and the snapshot as JSON.

    Of several that can be read the one with the highest `serial` is the latest.
    """
    try:
        body = msgspec.json.encode(snapshot)
    except UnicodeEncodeError:  # an environment with bytes that are no UTF-8, as os.fsdecode has it
        body = json.dumps(msgspec.to_builtins(snapshot), separators=(",", ":")).encode()
    return b"%s %d %d %s\n%s" % (_MAGIC, VERSION, serial, _checksum(body), body)


def decode(data: bytes) -> Snapshot:
    """Return the snapshot in `data`; raise SnapshotError if this version cannot read it."""
    version, _, body = _opened(data)
    if version > VERSION:
        raise SnapshotError(
            f"the state was written by a newer sockmgr (format {version}; this one reads up to "
            f"{VERSION})",
            means="sockets are kept, and the workers are replaced by a rollout",
            do="nothing; or start the newer version again",
        )
    try:
        return msgspec.convert(_upgraded(json.loads(body), version), Snapshot, str_keys=True)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"the state (format {version}) cannot be read: {error}") from None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot, and the serial number it was written with."""

    state: Snapshot
    serial: int


def latest(candidates: list[bytes]) -> Found | None:
    """Return the newest whole snapshot; None without any, and SnapshotError if none can be read."""
    serials: dict[int, bytes] = {}
    damage: SnapshotError | None = None
    for data in filter(None, candidates):
        try:
            _, serial, _ = _opened(data)
        except SnapshotError as error:  # cut short by the death of its writer: the other is whole
            damage = error
            continue
        serials[serial] = data
    if serials:
        serial = max(serials)
        return Found(state=decode(serials[serial]), serial=serial)
    if damage:
        raise damage
    return None


def _opened(data: bytes) -> tuple[int, int, bytes]:
    head, _, body = data.partition(b"\n")
    match head.split(b" "):
        case [magic, version, serial, checksum] if magic == _MAGIC and version.isdigit():
            if checksum != _checksum(body) or not serial.isdigit():
                raise SnapshotError("the state is damaged: its checksum does not match")
            return int(version), int(serial), body
        case _:
            raise SnapshotError("what was left as state is none")


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _upgraded(body: dict[str, Any], version: int) -> dict[str, Any]:
    for upgrade in _UPGRADES[version - 1 :]:
        body = upgrade(body)
    return body


def _from_1(body: dict[str, Any]) -> dict[str, Any]:
    """Instants that never come were infinite, and a rollout was rolling by its numbers only."""
    for service in body["services"]:
        for generation in service["generations"]:
            generation["rolling"] = False
            for record in (generation, *generation["workers"]):
                for key, instant in record.items():
                    if isinstance(instant, float) and math.isinf(instant):
                        record[key] = None
    return body


def _from_2(body: dict[str, Any]) -> dict[str, Any]:
    """The workers of a generation shared one lease, but for those sent to empty another."""
    for service in body["services"]:
        for generation in service["generations"]:
            for worker in generation["workers"]:
                worker["rescue"] = worker["lease"] != generation["lease"]
    return body


def _from_3(body: dict[str, Any]) -> dict[str, Any]:
    """Keys that a config leaves out stood for other values, which that same config does not mean.

    If they stayed, each service would seem to be changed, and an upgrade would replace its workers.
    """
    for service in body["config"]["services"]:
        http, rollout = service.get("http", {}), service["rollout"]
        if http.get("trusted_proxies") == ["127.0.0.1", "::1"]:
            http["trusted_proxies"] = None
        guessed = service["ready"]["type"] == "Delay" and not service["listen"]
        if guessed and rollout["probation"] == 0.25:
            rollout["probation"] = 10.0
    return body


_UPGRADES = (_from_1, _from_2, _from_3)  # each to the format that came next


# --- Fleets --------------------------------------------------------------------------------------


def record(
    name: str, fleet: Fleet, processes: Mapping[WorkerId, ProcessSnapshot]
) -> ServiceSnapshot:
    """Return what a fleet has to be restored from."""
    return ServiceSnapshot(
        name=name,
        last=fleet.last,
        current=fleet.current.number if fleet.current else 0,
        trial=fleet.trial.number if fleet.trial else 0,
        served=fleet.served,
        generations=tuple(_generation(g, processes) for g in fleet.generations.values()),
        fed=fleet.fed,
        unquiet=tuple(fleet.unquiet.items()),
        pending=fleet.pending.spec if fleet.pending else None,
    )


def _generation(
    generation: Generation, processes: Mapping[WorkerId, ProcessSnapshot]
) -> GenerationSnapshot:
    same = ("number", "spec", "lease", "wanted", "since", "phase", "failed_starts", "failures",
            "fault", "culprit", "rolling")  # fmt: skip
    workers = tuple(
        WorkerSnapshot(
            slot=worker.id.slot,
            lease=worker.lease,
            since=worker.since,
            deadline=_finite(worker.deadline),
            state=worker.state,
            ready_at=_finite(worker.ready_at),
            recycle=worker.recycle,
            hung=worker.hung,
            rescue=worker.rescue,
            leaving=worker.leaving,
            finishing=worker.finishing,
            process=processes.get(worker.id),
        )
        for worker in generation.workers.values()
    )
    return GenerationSnapshot(
        **{key: getattr(generation, key) for key in same},
        deadline=_finite(generation.deadline),
        not_before=_finite(generation.not_before),
        workers=workers,
    )


def _finite(instant: float) -> float | None:
    return instant if math.isfinite(instant) else None  # JSON has no infinity


def _or_never(instant: float | None) -> float:
    return math.inf if instant is None else instant


def restore(service: ServiceSnapshot, now: float) -> Fleet:
    """Return the fleet that was recorded, at the instant `now`, to be told what changed since.

    Nobody waits for a verdict any more, and a stop that was under way is forgotten: who starts a
    manager wants it to run. What waited while there was no manager gets LENIENCE to be looked at.
    """
    fleet = Fleet()
    fleet.last, fleet.served = service.last, service.served
    fleet.fed = service.fed
    # In a stop, which nobody goes on with, clients may still wait where new ones came until then.
    fed = dict(service.fed)
    fleet.unquiet = {lease: now for lease, _ in service.unquiet if lease not in fed}
    for each in service.generations:
        fleet.generations[each.number] = _restored(each, now)
    fleet.current = fleet.generations.get(service.current)
    fleet.trial = fleet.generations.get(service.trial)
    if service.pending:
        fleet.pending = Reload(spec=service.pending, request=0)
    return fleet


def _restored(each: GenerationSnapshot, now: float) -> Generation:
    generation = Generation(
        number=each.number,
        spec=each.spec,
        lease=each.lease,
        wanted=each.wanted,
        since=each.since,
        deadline=max(_or_never(each.deadline), now + LENIENCE),
        phase=each.phase,
        failed_starts=each.failed_starts,
        failures=each.failures,
        not_before=-math.inf if each.not_before is None else each.not_before,
        fault=each.fault,
        culprit=each.culprit,
        rolling=each.rolling,
    )
    for worker in each.workers:
        generation.workers[worker.slot] = _restored_worker(worker, each.number, now)
    return generation


def _restored_worker(was: WorkerSnapshot, generation: int, now: float) -> Worker:
    late = -math.inf if was.state is State.READY else now + LENIENCE
    return Worker(
        id=WorkerId(generation, was.slot),
        lease=was.lease,
        since=was.since,
        deadline=max(_or_never(was.deadline), late),
        state=was.state,
        ready_at=_or_never(was.ready_at),
        recycle=was.recycle,
        rescue=was.rescue,
        hung=was.hung,
        leaving=was.leaving,
        finishing=was.finishing,
    )
