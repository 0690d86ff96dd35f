"""What the next manager must know of this one, as bytes: the records of every fleet, who is who.

Pure: descriptors are not in it, but the numbers by which they are known again (inodes, pids with
their start times). An older format is read as well; of a newer one, or of a damaged one, nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from sockmgr.api import wire
from sockmgr.api.figures import Figures
from sockmgr.api.types import Counts, Event
from sockmgr.config.config import Config
from sockmgr.config.hooks import Moment
from sockmgr.config.spec import Listen, Spec
from sockmgr.config.values import MAX_WORKERS
from sockmgr.errors import SockmgrError
from sockmgr.fleet.comparison import Course
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.group import Together
from sockmgr.fleet.limits import Wear
from sockmgr.fleet.messages import Phase, State, WorkerId
from sockmgr.fleet.older_formats import upgraded

# Raised when a reader of the old format would misread the new one. A key that may be left out needs
# no new version: older managers ignore it, and newer ones know its default.
VERSION = 4

_MAGIC = b"sockmgr-state"
_TRYING = (Phase.BOOTING, Phase.CANARY, Phase.PROBATION)
# Lists are made of all up to the highest. More queues may not share an address (sock_reuseport).
_Small = Annotated[int, msgspec.Meta(ge=0, lt=2**16)]


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

    `told`: it was sent its stop signal. `ready`: it has said that it is, or was seen to be, which
    its fleet may not have handled yet. `heard`: it has said so, and may have to prove
    itself as well. `channel`: the inodes of both ends, ours first.
    `told_others`: pid and start of the descendants that were told as well, since it has ended.
    """

    pid: int
    started: int
    told: bool = False
    ready: bool = False
    channel: tuple[int, ...] = ()
    told_others: tuple[tuple[int, int], ...] = ()
    heard: bool = False


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as its fleet knows it; without a process it was never started. None is never.

    `rescue`: it was started to empty a queue that others left. `leaving`: it drains unasked.
    `finishing`: it drains, and was told to end now. `unhealthy`: which probes it fails. `worn`:
    which limit it has reached.
    """

    slot: _Small
    lease: _Small
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
    unhealthy: str = ""
    worn: Wear | None = None


class GenerationSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A generation as its fleet knows it, without those who wait for its verdict.

    Without a `lease` each of its workers has its own. `doubtful`: one was replaced for its health,
    and none was seen to be healthy since. `early` workers in a row reached a limit as soon as they
    were ready, so that no other is recycled before `recycle_from`.
    """

    number: Annotated[int, msgspec.Meta(ge=1)]
    spec: Spec
    lease: _Small | None
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
    step: int = 0
    checked: bool = False
    together: Together | None = None
    held_until: float | None = None
    doubtful: bool = False
    early: int = 0
    recycle_from: float | None = None
    passed: tuple[Moment, ...] = ()


class HookSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The hook that a rollout waits for; without a process it was about to be started."""

    generation: int
    moment: Moment
    since: float
    deadline: float
    ending: bool = False
    process: ProcessSnapshot | None = None


class ServiceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One fleet; `current` and `trial` are numbers of generations, 0 for none.

    `past` is what history.py reads: the generations before.
    """

    name: str
    last: int
    current: int
    trial: int
    served: bool
    generations: tuple[GenerationSnapshot, ...]
    fed: tuple[tuple[_Small, int], ...]
    unquiet: tuple[tuple[_Small, float], ...]
    pending: Spec | None = None
    past: bytes = b""
    pending_together: Together | None = None
    down_since: float | None = None
    hook: HookSnapshot | None = None


class DispatcherSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The dispatcher's process, and the inode of the manager's end of the connection to it."""

    pid: int
    started: int
    connection: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One manager. Instants are of CLOCK_MONOTONIC, so they mean nothing in another boot.

    `events` are all that have a higher id than `events_since`; `counts` (of each service) and
    `refused` are what was counted until now. `moves` are the ends of move queues: inodes by name.
    `figures` are what workers had counted that have ended, by service and generation; `courses` are
    the canaries that are compared with what serves beside them, by service. `newest` is the config
    that was loaded last, if that is not the one in force: its rollouts go on, or have failed.
    """

    boot_id: str
    config: Config
    newest: Config | None = None
    listeners: tuple[ListenerSnapshot, ...]
    services: tuple[ServiceSnapshot, ...]
    events: tuple[Event, ...] = ()
    events_since: int = 0
    counts: dict[str, Counts] = {}
    refused: int = 0
    dispatcher: DispatcherSnapshot | None = None
    moves: dict[str, int] = {}
    figures: dict[str, dict[int, Figures]] = {}
    courses: dict[str, Course | None] = {}


# --- Bytes ---------------------------------------------------------------------------------------


def sealed(body: bytes, *, serial: int) -> bytes:
    """Return one line that tells version, serial number and checksum, and the snapshot, as JSON.

    Of several that can be read the one with the highest `serial` is the latest.
    """
    # One line that is no JSON, so that a reader knows the format before it reads any of it.
    return b"%s %d %d %s\n%s" % (_MAGIC, VERSION, serial, _checksum(body), body)


def as_json(record: object) -> msgspec.Raw:
    """Return a record, or some, as JSON; what is in it as JSON already is taken as it is."""
    try:
        return msgspec.Raw(msgspec.json.encode(record))
    except UnicodeEncodeError:  # an environment with bytes that are no UTF-8, as os.fsdecode has it
        plain = msgspec.to_builtins(record, enc_hook=lambda raw: json.loads(bytes(raw)))
        return msgspec.Raw(json.dumps(plain, separators=(",", ":")).encode())


def decode(data: bytes) -> Snapshot:
    """Return the snapshot in `data`; raise SnapshotError if this version cannot read it."""
    version, _, body = _opened(data)
    # Better no state than one that is half understood: workers would be signalled by mistake.
    if version > VERSION:
        raise SnapshotError(
            f"the state was written by a newer sockmgr (format {version}; this one reads up to "
            f"{VERSION})",
            means="sockets are kept, and the workers are replaced by a rollout",
            do="nothing; or start the newer version again",
        )
    # Whatever is wrong with the bytes, the manager must start: it then goes by the names alone.
    try:
        records = upgraded(json.loads(body, parse_int=_int), version)
        state = msgspec.convert(records, Snapshot, str_keys=True)
    except (*wire.UNREADABLE, LookupError, TypeError, AttributeError) as error:
        raise SnapshotError(f"the state (format {version}) cannot be read: {error}") from None
    for service in state.services:
        if flaw := _contradiction(service):
            raise SnapshotError(f"service {service.name} cannot have been so: {flaw}")
    return state


def _int(digits: str) -> int:
    if len(digits) > 20:  # which no counter, pid or inode has, and more than a float may take
        raise ValueError(f"{digits[:20]}... is no number of 64 bits")
    return int(digits)


def _contradiction(service: ServiceSnapshot) -> str:
    """Return why no fleet can have had these records, "" if one can."""
    if len({each.number for each in service.generations}) < len(service.generations):
        return "two generations have one number"
    for each in service.generations:
        if len({worker.slot for worker in each.workers}) < len(each.workers):
            return f"two workers of generation {each.number} have one slot"
        is_current, is_trial = (each.number == one for one in (service.current, service.trial))
        roles = (each.phase is Phase.CURRENT, each.phase in _TRYING)
        if roles != (is_current, is_trial) or each.phase is Phase.GONE:
            return f"generation {each.number} is {each.phase}"
        if each.spec.rollout.start_concurrency < 1:
            return f"generation {each.number} may start nobody"
    return ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot, and the serial number it was written with."""

    state: Snapshot
    serial: int


def latest(candidates: list[bytes]) -> Found | None:
    """Return the newest whole snapshot; None without any, and SnapshotError if none can be read."""
    # By their serial numbers, not by instants: the clock may have been set meanwhile.
    serials: dict[int, bytes] = {}
    damage: SnapshotError | None = None
    for data in filter(None, candidates):
        try:
            _, serial, _ = _opened(data)
        except SnapshotError as error:  # cut short by the death of its writer: the other is whole
            damage = error
            continue
        serials[serial] = data
    # Both are whole unless a manager died while it wrote, so the newer one is what was so last.
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
            # The death of the writer may have cut the state short anywhere.
            if checksum != _checksum(body) or not serial.isdigit():
                raise SnapshotError("the state is damaged: its checksum does not match")
            return int(version), int(serial), body
        case _:
            raise SnapshotError("what was left as state is none")


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


# --- Fleets --------------------------------------------------------------------------------------

# What is written as it is, and read back so. The requests of a generation are left out: their
# clients lose the connection with this manager.
OF_GENERATION = (
    "number", "lease", "wanted", "since", "phase", "failed_starts", "failures", "fault", "culprit",
    "rolling", "step", "checked", "together", "doubtful", "early",
)  # fmt: skip
OF_WORKER = (
    "lease", "since", "state", "recycle", "hung", "rescue", "leaving", "finishing", "unhealthy",
    "worn",
)  # fmt: skip
OF_HOOK = ("generation", "moment", "since", "ending")


def same(record: object, names: Iterable[str]) -> dict[str, Any]:
    """Return these of its fields, for a record that has them as well."""
    return {name: getattr(record, name) for name in names}


def service_record(
    name: str,
    fleet: Fleet,
    generations: tuple[GenerationSnapshot, ...],
    past: bytes = b"",
    hook: ProcessSnapshot | None = None,
) -> ServiceSnapshot:
    """Return the record of a fleet, with those of its generations, its history and its hook."""
    pending, run = fleet.pending, fleet.hook
    return ServiceSnapshot(
        name=name,
        last=fleet.last,
        current=fleet.current.number if fleet.current else 0,
        trial=fleet.trial.number if fleet.trial else 0,
        served=fleet.served,
        generations=generations,
        fed=fleet.fed,
        unquiet=tuple(fleet.unquiet.items()),
        pending=pending.spec if pending else None,
        past=past,
        pending_together=pending.together if pending else None,
        down_since=fleet.down_since,
        hook=HookSnapshot(**same(run, OF_HOOK), deadline=run.deadline, process=hook)
        if run
        else None,
    )


def generation_record(
    generation: Generation, spec: Spec, workers: tuple[WorkerSnapshot, ...]
) -> GenerationSnapshot:
    return GenerationSnapshot(
        **same(generation, OF_GENERATION),
        spec=spec,
        deadline=_finite(generation.deadline),
        not_before=_finite(generation.not_before),
        held_until=_finite(generation.held_until),
        recycle_from=_finite(generation.recycle_from),
        passed=tuple(sorted(generation.passed)),
        workers=workers,
    )


def worker_record(worker: Worker, process: ProcessSnapshot | None) -> WorkerSnapshot:
    return WorkerSnapshot(
        **same(worker, OF_WORKER),
        slot=worker.id.slot,
        deadline=_finite(worker.deadline),
        ready_at=_finite(worker.ready_at),
        process=process,
    )


def _finite(instant: float) -> float | None:
    return instant if math.isfinite(instant) else None  # JSON has no infinity
