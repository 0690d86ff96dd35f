"""The records as entries of the journal: the table of ids, the catalog, fields and bytes."""

from __future__ import annotations

import ast
import re
import uuid
from pathlib import Path

import pytest

from sockmgr.api.records import (
    LONGEST_FIELD,
    LONGEST_VALUE,
    WHY,
    EventKind,
    encode,
    entry,
    event,
    line_about,
    line_of,
    printable,
    recorded,
    service_of,
    subject,
)
from sockmgr.api.types import Event
from sockmgr.fleet.endings import Ending
from sockmgr.fleet.messages import (
    State,
)
from sockmgr.log import Occurrence
from sockmgr.terminal.pieces import PIECE_MAX, Piece
from tests.helpers.entries import decode
from tests.helpers.record_texts import calls_of_the_log, records

ROOT = Path(__file__).parents[2]
CATALOG = (ROOT / "contrib" / "systemd" / "sockmgr.catalog").read_text()


def explained() -> dict[str, tuple[str, str]]:
    """Return the entries of the catalog: id -> (message, text)."""
    found = re.findall(r"^# (.+)\n-- (\w{32})\n((?:(?!# ).*\n?)*)", CATALOG, re.MULTILINE)
    assert len(found) == CATALOG.count("\n-- ")
    return {id: (message, text) for message, id, text in found}


# --- The table and the catalog -------------------------------------------------------------------


def test_the_ids_are_random_and_no_two_are_alike() -> None:
    ids = [kind.id for kind in EventKind if kind.id]
    assert len(set(ids)) == len(ids)
    for id in ids:
        assert uuid.UUID(id).version == 4
        assert uuid.UUID(id).hex == id


def test_every_kind_is_written_by_the_code() -> None:
    assert {str(kind) for kind in EventKind} <= {message for message, _ in records()}


def test_the_code_names_the_kind_of_a_record_and_never_repeats_its_message() -> None:
    messages = {str(kind) for kind in EventKind}
    for path in sorted((ROOT / "sockmgr").rglob("*.py")):
        calls = calls_of_the_log(ast.parse(path.read_text()), ast.Constant)
        assert not messages & {message for message, _ in calls}, path


def test_the_catalog_explains_exactly_the_kinds_that_have_an_id() -> None:
    assert {id: message for id, (message, _) in explained().items()} == {
        kind.id: kind for kind in EventKind if kind.id
    }


def test_the_catalog_says_of_each_kind_what_happened_what_it_means_and_what_to_do() -> None:
    for message, text in explained().values():
        parts = text.strip().split("\n\n")
        assert len(parts) == 3, message
        assert re.fullmatch(r"Subject: .+\nDefined-By: sockmgr", parts[0]), message


def test_the_catalog_uses_only_fields_that_such_a_record_always_has() -> None:
    told: dict[str, set[str]] = {}
    for message, fields in records():
        names = {f"SOCKMGR_{name.upper()}" for name in fields if name}
        if fields & {"worker", "left_by"}:
            names |= {"SOCKMGR_SERVICE", "SOCKMGR_GENERATION", "SOCKMGR_WORKER"}
        told[message] = told.get(message, names) & names
    for message, text in explained().values():
        used = set(re.findall(r"@(\w+)@", text))
        assert used <= told[message], message


# --- Fields --------------------------------------------------------------------------------------


def test_an_event_is_named_by_its_constant_message() -> None:
    assert event("worker ended") == "worker-ended"
    assert event("systemd's socket has another address") == "systemd-s-socket-has-another-address"


def test_no_two_records_of_the_code_have_one_name() -> None:
    messages = {message for message, _ in records()}
    assert len({event(message) for message in messages}) == len(messages)


def test_a_record_about_a_worker_tells_its_service_and_generation_too() -> None:
    happened = Occurrence(EventKind.WORKER_ENDED, {"worker": "web@7.2", "pid": 812})
    assert entry(happened, "error") == {
        "MESSAGE": "worker ended worker=web@7.2 pid=812", "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "sockmgr", "SOCKMGR_EVENT": "worker-ended",
        "MESSAGE_ID": EventKind.WORKER_ENDED.id, "SOCKMGR_WORKER": "web@7.2",
        "SOCKMGR_SERVICE": "web", "SOCKMGR_GENERATION": "7", "SOCKMGR_PID": "812",
    }  # fmt: skip


def test_a_record_without_an_id_still_has_the_name_of_its_event() -> None:
    found = entry(Occurrence("descendant reaped", {"pid": 7}), "info")
    assert found["MESSAGE"] == "descendant reaped pid=7"
    assert found["SOCKMGR_EVENT"] == "descendant-reaped"
    assert "MESSAGE_ID" not in found


@pytest.mark.parametrize("name", ["web@7.2", "web@7.2 ready?"])
def test_a_line_of_a_worker_or_of_its_readiness_command_says_which_worker(name: str) -> None:
    assert line_of(name, Piece("hello")) == {
        "MESSAGE": "hello", "PRIORITY": "6", "SYSLOG_IDENTIFIER": name,
        "SOCKMGR_WORKER": "web@7.2", "SOCKMGR_SERVICE": "web", "SOCKMGR_GENERATION": "7",
    }  # fmt: skip


def test_a_line_of_the_log_has_the_message_and_the_fields_of_an_occurrence() -> None:
    fields = {"worker": "web@7.2", "was": State.READY, "how": Ending(status=-9), "served": 0.25}
    assert str(Occurrence(EventKind.WORKER_ENDED, fields)) == (
        "worker ended worker=web@7.2 was=ready how='was killed by signal 9 (KILL)' served=0.25"
    )


def test_what_is_no_worker_has_no_service() -> None:
    assert [service_of(name) for name in ("upgrade", "a@b", "web@")] == ["", "", ""]


@pytest.mark.parametrize("name", ["web@7.2", "web@7.2 ready?", "web@7 before", "web@7"])
def test_the_service_is_known_by_a_worker_a_generation_or_a_command_of_them(name: str) -> None:
    assert service_of(name) == "web"
    assert subject({"service": "web"}) == subject({"left_by": "web@7.2"}) == "web"
    assert subject({"pid": 7}) == ""


# --- Events --------------------------------------------------------------------------------------


def test_an_event_says_of_whom_it_is_what_happened_and_why() -> None:
    fields = {"worker": "web@7.2", "pid": 812, "how": "clean", "a": 0.25}
    assert recorded(Occurrence(EventKind.WORKER_ENDED, fields), "info", 1.5, 3) == Event(
        id=3, time=1.5, level="info", event="worker-ended", service="web", generation=7,
        worker="web@7.2", what="worker ended", why="clean", fields={"pid": "812", "a": "0.25"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "fields", "line"),
    [
        (
            EventKind.WORKER_ENDED,
            {"worker": "web@7.2", "how": "clean", "pid": 8},
            "web@7.2 worker ended: clean pid=8",
        ),
        (
            EventKind.ABORTED,
            {"service": "web", "generation": 7, "reason": "it\nfell"},
            "web@7 aborted: it fell",
        ),
        (EventKind.STOPPED, {"service": "web"}, "web stopped"),
        (EventKind.STOPPING, {"now": False}, "- stopping now=False"),
    ],
)
def test_an_event_is_one_line_for_a_person(
    kind: EventKind, fields: dict[str, object], line: str
) -> None:
    assert line_about(recorded(Occurrence(kind, fields), "info", 0.0, 1)) == line


def test_no_record_has_two_fields_that_tell_why() -> None:
    for message, fields in records():
        assert len(fields & set(WHY)) <= 1, message


def test_an_event_is_bounded_whatever_is_told() -> None:
    found = recorded(Occurrence(EventKind.ABORTED, {"reason": "x" * 10**6}), "error", 0.0, 1)
    assert len(found.why) == LONGEST_FIELD


def test_what_is_printed_has_no_sequence_that_a_terminal_obeys() -> None:
    assert printable("a\x1b[2Jb\n c\x9b\u20ac") == "a\\x1b[2Jb c\\x9b\u20ac"


# --- Bytes ---------------------------------------------------------------------------------------


def test_a_piece_of_a_long_line_is_a_whole_entry_byte_for_byte_and_marked_as_a_piece() -> None:
    text = "\udce9" + "x" * (PIECE_MAX - 1)
    found = line_of("web@7.2", Piece(text, partial=True))
    assert found["SOCKMGR_PARTIAL"] == "1"
    assert b"MESSAGE=\xe9" + b"x" * (PIECE_MAX - 1) + b"\n" in encode(found)


def test_values_of_one_line_or_of_several_come_back_as_they_were() -> None:
    fields = {"MESSAGE": "one\ntwo=\n", "SOCKMGR_HOW": "a=b", "SOCKMGR_NOTHING": "", "E": "\u20ac"}
    assert decode(encode(fields)) == fields


def test_a_value_without_end_is_cut_and_one_that_is_no_text_is_sent_all_the_same() -> None:
    found = decode(encode({"MESSAGE": "x" * 10**6, "SOCKMGR_PATH": "\udcff"}))
    assert found == {"MESSAGE": "x" * LONGEST_VALUE, "SOCKMGR_PATH": "?"}
