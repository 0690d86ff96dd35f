"""The kinds of things that happen in a manager, rendered as events and as entries of the journal.

Pure. contrib/systemd/sockmgr.catalog explains the kinds that have an id, for `journalctl -x`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Self

from sockmgr.api.types import Event
from sockmgr.log import Occurrence
from sockmgr.terminal.pieces import PIECE_MAX, Piece
from sockmgr.terminal.visible import visible

IDENTIFIER = "sockmgr"  # SYSLOG_IDENTIFIER of the manager's records; a worker's is its name
LONGEST_VALUE = PIECE_MAX  # characters: an entry must fit into one datagram

# The fields that say why or how something happened: an occurrence has at most one of them.
WHY = ("why", "reason", "how", "because", "error", "found", "where")
LONGEST_FIELD = 500  # characters of one field of an event
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)

_NAMED = ("service", "generation", "worker")  # these fields have attributes of their own in Event
# A worker's name, also at the beginning of the name of a command that is run for the worker.
_WORKER = re.compile(r"(?P<worker>(?P<service>\S+)@(?P<generation>\d+)\.\d+)(?: .*)?")

_SPEAKER = re.compile(r"(?P<service>\S+)@\d+(?:\.\d+)?(?: .*)?")


class EventKind(StrEnum):
    """The kinds of events that a program or a person may look for, each with its MESSAGE_ID.

    The value is the constant message. An id was drawn at random once, and never changes. Only
    sockmgr's own code looks for a kind that has no id.
    """

    id: str

    def __new__(cls, message: str, id: str = "") -> Self:
        """Make a member whose value is `message`."""
        kind = str.__new__(cls, message)
        kind._value_ = message
        kind.id = id
        return kind

    # The manager
    MANAGER_STARTED = "manager started", "7831962a05ae4d10adfaf06641f7fa01"
    SERVING = "serving", "c6a483140bb945989e5218655e0a7d54"
    WAITED_IN_VAIN = "waited in vain", "7d8ceb0255004be890d3cd572286dda7"
    NOT_SERVING_IN_TIME = "not serving in time", "e933c5ec8b82415cb0d96426462d872f"
    DOWN_FOR_TOO_LONG = "down for too long", "edf3140bdcb745d59a0ed2e9b1ba65e8"
    STOPPING = "stopping", "e1f1f6e0654849dd9d51b6dc048775b8"
    STOPPED = "stopped", "3c24da2377a243bc8cab0bc18568dded"
    LEAVING = "leaving", "4150d5f37acc472ab036b861ef7b6e7f"
    UPGRADING = "upgrading", "e4c36fd2a261471fb6b170720e806baf"
    UPGRADE_REFUSED = "upgrade refused", "439b41d87f53421db1fd74629029f115"
    CANNOT_BECOME_THE_NEW_VERSION = (
        "cannot become the new version",
        "68a86958686642b6a900d105c8bd817f",
    )
    NEXT_MANAGER_WOULD_MISS_SOMETHING = (
        "next manager would miss something",
        "4f406dd1a6a94a2c9a065c016401d35b",
    )
    STATE_OF_ANOTHER_MANAGER_NOT_USED = (
        "state of another manager not used",
        "b58362a6c1f64522a0d8982c6944027a",
    )
    NO_GUARD = "no guard", "08cdf8aafe314b8c90b805143ec84fdf"
    GUARD_ENDED = "guard ended", "8dcadc63d93c4b2ca6897a20b6bda4a5"
    NO_KEEPER = "no keeper", "13e742335a7242e49919412c1a21112c"
    KEEPER_ENDED = "keeper ended", "595362ffff5d45a481534385cf2a646e"
    NO_DISPATCHER = "no dispatcher", "8c7dde673ab347e0bf5d34112674a2db"
    DISPATCHER_ENDED = "dispatcher ended", "e965e64595724411874dc6be1ecebcda"
    WATCHDOG_NOT_FED = "watchdog not fed", "a1bb8cb5ac3f417e89be417c2f88822b"
    WATCHDOG_FED_AGAIN = "watchdog fed again", "ef5923e2c4674b409edfbd251bd23f85"
    SYSTEMD_CANNOT_BE_TOLD = "systemd cannot be told", "9c3bc39a7ba54a7fb28b776b577a4cf3"
    RECORDS_DROPPED = "records dropped", "e21ec8eb07ff499f9bd3cbc9e52de554"
    JOURNAL_NOT_USED = "journal not used", "a599eeab173542c88e477de12ff5fe8f"
    JOURNAL_STREAM_NOT_OPENED = "journal stream not opened", "1aeadbd8fbf24e24a582683f0d8da64e"
    # Reloads
    RELOAD_REFUSED = "reload refused", "dea30d14b4784497b7ec93554239f042"
    SCALE_REFUSED = "scale refused", "76dc225ba56549e3bc3720c9bcc59e95"
    CUT_OVER = "cut-over", "d4de1702d0d8406da3498ec0a1ca27f0"
    CANARY_STEP = "canary gets a share", "4eeaa942fe244a47a338c3814e22ae05"
    CANARY_PASSED = "canary passed", "b77bb761807140d9a9ffe4323b132927"
    CANARY_PROMOTED = "canary promoted", "844d9ae23a254865956b72ddadb91f93"
    COMMITTED = "committed", "a1e15f0a0180462184a4d4c7669e4acb"
    ABORTED = "aborted", "fd4eb436707249de9710d5f03569caf3"
    SURGE_REDUCED = "surge reduced", "d1baa56114a94b7eb5a74c72f3101098"
    THIS_LOSES_REQUESTS = "this loses requests", "d86589d2fccc46fe98ef3f5d32105208"
    # Hooks
    HOOK_STARTED = "hook started"
    HOOK_ENDED = "hook ended"
    HOOK_FAILED = "hook failed", "c50cefa49f5c4a3fbfe4ea04ff1e3072"
    HOOK_KILLED = "hook killed", "708445a3aa704a7284919bc5187cf17d"
    HOOK_ADOPTED = "hook adopted"
    HOOKS_NOT_RUN = "hooks not run", "cbfbf9d9710e48479b863ef968669bf7"
    # Workers
    WORKER_STARTED = "worker started"
    WORKER_READY = "worker ready", "257982e8e5954bed999ed182a86b94b9"
    WORKER_ADOPTED = "worker adopted", "ba679582f567446db88bdbb83ae7a92f"
    WORKER_ENDED = "worker ended", "bf7263377ea746dfb37d3553d666198b"
    WORKER_KILLED = "worker killed", "50c008a4b3044c18afba11053f2a5270"
    WORKER_TOLD_TO_FINISH_NOW = "worker told to finish now", "6686a7dd576c44d2b36b3988c2935f8e"
    WORKER_HANGS = "worker hangs", "649fcf219d6e47a0950a6f708edfc36e"
    WORKER_UNHEALTHY = "worker unhealthy", "4c1844bc55954aab9e2a9eb79755958e"
    NO_WORKER_IS_HEALTHY = "no worker is healthy", "c8c0b1c05b714866819c9b933f0ee697"
    WORKER_RECYCLED = "worker recycled", "b681978cdee74ce9a06249250ec8005c"
    RECYCLING_SLOWED_DOWN = "recycling slowed down", "2bea2f8024444eff820bd3e286452a8e"
    CANNOT_START_WORKER = "cannot start worker", "e05487ee07ae4cd1ad1d4167dd31604c"
    OUT_OF_MEMORY = "worker out of memory", "7a611fe6f53e4f68977dea6e4fdbe27c"
    NO_CGROUP = "no cgroup for a worker", "c7263e417528483aac02c60198649754"
    NO_RESOURCES = "resources have no effect", "3c052c2d5f184805930b574262d924ab"
    STRAY_PROCESS_KILLED = "stray process killed", "851a8b989daa4d7cb91c071a2b14dc23"
    WORKER_TAKES_NO_CONNECTIONS = "worker takes no connections", "4181aab0ee5041bab576756a2bb45420"
    WORKER_LOST_CONNECTIONS = "worker lost connections", "de1ffb8dd2da44a19f02ea8cbe4aa9fc"
    WORKER_MISBEHAVES = "worker misbehaves", "625590e5eca447e3b4c54e2dba60b5ef"
    # Listeners
    LISTENING = "listening", "e9c7498d8c244feb954f322a593843e6"
    CUT_OVERS_OVERLAP = "cut-overs overlap", "d54eaee8c1cc47cebcde2000d1118751"
    QUEUES_CHOSEN_AT_RANDOM = "queues chosen at random", "ef978e80954c485cb43f0281e0603a41"
    LISTENER_REPAIRED = "listener repaired", "5f4344b38ed64278892e34fdafac3e33"
    LISTENER_CLOSED = "listener closed", "f9bd2bbd7cb347bea8f4bfd1b027eac1"
    WORKERS_SHARE_A_QUEUE = "workers share a queue", "4ff425f2516042cd94021d870332f8ae"
    SYSTEMDS_SOCKET_HAS_ANOTHER_ADDRESS = (
        "systemd's socket has another address",
        "9502ccb4330345c4a3e5821cb664cbba",
    )
    CONNECTIONS_IN_SEVERAL_QUEUES = (
        "connections in several queues",
        "de46a4606c3c48218141712057b7cc2a",
    )
    CONNECTIONS_WAIT = "connections wait", "5bc921ec7d124949bb4e65ee9c823d85"
    # Clients
    CONTROL_CLIENT_REFUSED = "control client refused", "ae5fe4fb012346edad20cd05795a83e3"
    CONTROL_CALL_REFUSED = "control call refused", "701003f3a03f431691074df4f9e208d8"
    CONTROL_SOCKET_NOT_SHARED = "control socket not shared", "fc833eb9299940ea886d2999b461f5ea"
    CONTROL_SOCKET_CROWDED = "control socket crowded", "04cc6222d8c948d2b0f8544ea0dfe607"
    CONTROL_CLIENTS_MUST_WAIT = "control clients must wait", "192c7246ccee43509bd9ef8f490c25e6"
    CONTROL_REQUEST_FAILED = "control request failed", "a13bcbc4fedc4548ba047aedaa0c50a4"
    NOTIFY_DATAGRAMS_IGNORED = "notify datagrams ignored", "01146a7b3ec24d66997a30d7c64dc468"


# --- What a record is about ----------------------------------------------------------------------


def event(message: str) -> str:
    """Return the name of an event from its constant message: `worker ended` is `worker-ended`."""
    return re.sub(r"[^a-z0-9]+", "-", message.lower()).strip("-")


def service_of(worker: str) -> str:
    """Return the service in the name of a worker (`web@7.2`) or a hook (`web@7 before`), or ""."""
    found = _SPEAKER.fullmatch(worker)
    return found["service"] if found else ""


def subject(fields: Mapping[str, object]) -> str:
    """Return the service that an occurrence with these fields is about, or "" if none."""
    return str(fields.get("service") or service_of(_worker_of(fields)))


def recorded(occurrence: Occurrence, level: str, time: float, id: int) -> Event:
    """Return the event that a client of the control socket gets for an occurrence."""
    fields = occurrence.fields
    about = _about_worker(_worker_of(fields))
    words = {name: _word(value) for name, value in fields.items() if name not in _NAMED}
    why = next((name for name in WHY if name in words), "")
    generation = str(fields.get("generation") or about.get("SOCKMGR_GENERATION", 0))
    return Event(
        id=id,
        time=time,
        level=level,
        event=event(occurrence.kind),
        service=subject(fields),
        generation=int(generation),
        worker=about.get("SOCKMGR_WORKER", ""),
        what=str(occurrence.kind),
        why=words.pop(why, ""),
        fields=words,
    )


def _word(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_FIELD else f"{text[: LONGEST_FIELD - 3]}..."


def line_about(event: Event) -> str:
    """Return an event as one line for a person, without its time."""
    where = event.worker or event.service
    if event.generation and not event.worker:
        where += f"@{event.generation}"
    rest = [f"{name}={value}" for name, value in event.fields.items()]
    what = f"{event.what}: {event.why}" if event.why else event.what
    return printable(" ".join([where or "-", what, *rest]))


def printable(text: str) -> str:
    """Return `text` as one line without any sequence that a terminal would obey."""
    return visible(" ".join(text.split()), colours=False)


def entry(occurrence: Occurrence, level: str) -> dict[str, str]:
    """Return the fields of the journal's entry for an occurrence."""
    kind, own = occurrence.kind, occurrence.fields
    fields = {
        "MESSAGE": str(occurrence),
        "PRIORITY": str(PRIORITIES.get(level, 6)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "SOCKMGR_EVENT": event(kind),
    }
    if isinstance(kind, EventKind) and kind.id:
        fields["MESSAGE_ID"] = kind.id
    fields |= _about_worker(_worker_of(own))
    return fields | {f"SOCKMGR_{name.upper()}": str(value) for name, value in own.items()}


def line_of(worker: str, piece: Piece) -> dict[str, str]:
    """Return the fields of the journal's entry for a line of a worker, or of its command."""
    fields = {"MESSAGE": piece.text, "PRIORITY": "6", "SYSLOG_IDENTIFIER": worker}
    if piece.partial:
        fields["SOCKMGR_PARTIAL"] = "1"
    return fields | _about_worker(worker)


def _worker_of(fields: Mapping[str, object]) -> str:
    return str(fields.get("worker") or fields.get("left_by") or "")


def _about_worker(worker: str) -> dict[str, str]:
    found = _WORKER.fullmatch(worker)
    if found is None:
        return {}
    return {f"SOCKMGR_{name.upper()}": value for name, value in found.groupdict().items()}


def encode(fields: Mapping[str, str]) -> bytes:
    """Return an entry in the form that journald reads: systemd.io/JOURNAL_NATIVE_PROTOCOL."""
    return b"".join(_encode(name, value[:LONGEST_VALUE]) for name, value in fields.items())


def _encode(name: str, value: str) -> bytes:
    data = value.encode(errors="surrogateescape" if name == "MESSAGE" else "replace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
