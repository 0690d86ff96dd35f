"""The kinds of what happens in a manager, and two renderings: events, and entries of the journal.

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

IDENTIFIER = "sockmgr"  # of the manager's own records; the identifier of a worker is its name
LONGEST_VALUE = PIECE_MAX  # characters: an entry must fit into one datagram

# The fields that say why or how something happened: no occurrence has two of them.
WHY = ("why", "reason", "how", "because", "error", "found", "where")
LONGEST_FIELD = 500  # characters of one field of an event
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)

_NAMED = ("service", "generation", "worker")  # an Event has places of their own for these fields
# The name of a command that is run for a worker begins with the name of the worker.
_WORKER = re.compile(r"(?P<worker>(?P<service>\S+)@(?P<generation>\d+)\.\d+)(?: .*)?")


class EventKind(StrEnum):
    """The kinds of events that a program or a person may look for, each with its MESSAGE_ID.

    The value is the constant message. An id never changes: it was drawn at random, once. A kind
    without an id is known to the code of sockmgr only.
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
    NOT_SERVING_IN_TIME = "not serving in time", "e933c5ec8b82415cb0d96426462d872f"
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
    COMMITTED = "committed", "a1e15f0a0180462184a4d4c7669e4acb"
    ABORTED = "aborted", "fd4eb436707249de9710d5f03569caf3"
    SURGE_REDUCED = "surge reduced", "d1baa56114a94b7eb5a74c72f3101098"
    THIS_LOSES_REQUESTS = "this loses requests", "d86589d2fccc46fe98ef3f5d32105208"
    # Workers
    WORKER_STARTED = "worker started"
    WORKER_READY = "worker ready", "257982e8e5954bed999ed182a86b94b9"
    WORKER_ADOPTED = "worker adopted", "ba679582f567446db88bdbb83ae7a92f"
    WORKER_ENDED = "worker ended", "bf7263377ea746dfb37d3553d666198b"
    WORKER_KILLED = "worker killed", "50c008a4b3044c18afba11053f2a5270"
    WORKER_TOLD_TO_FINISH_NOW = "worker told to finish now", "6686a7dd576c44d2b36b3988c2935f8e"
    WORKER_HANGS = "worker hangs", "649fcf219d6e47a0950a6f708edfc36e"
    CANNOT_START_WORKER = "cannot start worker", "e05487ee07ae4cd1ad1d4167dd31604c"
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
    CONTROL_SOCKET_CROWDED = "control socket crowded", "04cc6222d8c948d2b0f8544ea0dfe607"
    CONTROL_CLIENTS_MUST_WAIT = "control clients must wait", "192c7246ccee43509bd9ef8f490c25e6"
    CONTROL_REQUEST_FAILED = "control request failed", "a13bcbc4fedc4548ba047aedaa0c50a4"
    NOTIFY_DATAGRAMS_IGNORED = "notify datagrams ignored", "01146a7b3ec24d66997a30d7c64dc468"


# --- What a record is about ----------------------------------------------------------------------


def event(message: str) -> str:
    """Return the name of an event by its constant message: `worker ended` is `worker-ended`."""
    return re.sub(r"[^a-z0-9]+", "-", message.lower()).strip("-")


def service_of(worker: str) -> str:
    """Return the service in a worker's name (`web@7.2`), or nothing."""
    found = _WORKER.fullmatch(worker)
    return found["service"] if found else ""


def subject(fields: Mapping[str, object]) -> str:
    """Return the service that an occurrence with these fields is about, or nothing."""
    return str(fields.get("service") or service_of(_worker_of(fields)))


def recorded(occurrence: Occurrence, level: str, time: float, id: int) -> Event:
    """Return an occurrence as the event that a client of the control socket gets."""
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
    told = f"{event.what}: {event.why}" if event.why else event.what
    return printable(" ".join([where or "-", told, *rest]))


def printable(text: str) -> str:
    """Return `text` as one line without any sequence that a terminal obeys."""
    return visible(" ".join(text.split()), colours=False)


# --- Entries -------------------------------------------------------------------------------------


def entry(occurrence: Occurrence, level: str) -> dict[str, str]:
    """Return an occurrence as the fields of an entry in the journal."""
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
    """Return the fields of a line that a worker, or a command run for it, wrote."""
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
    """Return an entry as journald reads it: https://systemd.io/JOURNAL_NATIVE_PROTOCOL."""
    return b"".join(_encode(name, value[:LONGEST_VALUE]) for name, value in fields.items())


def _encode(name: str, value: str) -> bytes:
    data = value.encode(errors="surrogateescape" if name == "MESSAGE" else "replace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
