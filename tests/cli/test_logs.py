"""`sockmgr logs`: from the manager's memory, or from the journal, through journalctl."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sockmgr.api.types import JournalPlace, LogLine
from tests.helpers.command_line import CONFIG, manager, path, sockmgr
from tests.helpers.fake_manager import FakeManager

__all__ = ["manager", "path"]  # fixtures

Entries = Callable[..., Path]


def entry(message: object, **fields: object) -> Mapping[str, object]:
    """Return what journalctl prints of an entry."""
    return {
        "__CURSOR": f"at {message}", "__REALTIME_TIMESTAMP": "1500000", "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "web@8.1", "MESSAGE": message, **fields,
    }  # fmt: skip


RECORD = entry(
    "aborted service=web", PRIORITY="3", SYSLOG_IDENTIFIER="sockmgr", SOCKMGR_EVENT="aborted",
    SOCKMGR_SERVICE="web",
)  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entries:
    """Return what makes a journalctl that has some entries; it notes its arguments in a file."""

    def make(*entries: object, code: int = 0, complaint: str = "") -> Path:
        program, data, asked = (tmp_path / name for name in ("journalctl", "entries", "asked"))
        data.write_text("".join(f"{json.dumps(each)}\n" for each in entries))
        program.write_text(
            f'#!/bin/sh\necho "$*" >> {asked}\n'
            f'case "$*" in *--reverse*) tac {data};; *) cat {data};; esac\n'
            f'echo "{complaint}" >&2; exit {code}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return asked

    return make


# --- From the manager ----------------------------------------------------------------------------


def test_the_last_lines_are_shown_with_their_time_and_who_wrote_them(manager: FakeManager) -> None:
    manager.tell("one", "two", "three")
    shown = sockmgr("logs", "-n", "2").stdout.splitlines()
    assert [line.split(" ", 2)[2] for line in shown] == ["web@8.1 | two", "web@8.1 | three"]
    assert shown[0].startswith(("1970-01-01", "1969-12-31"))


def test_only_what_is_about_a_service_is_shown_if_one_is_named(manager: FakeManager) -> None:
    manager.tell("one")
    manager.tell("other", service="job")
    assert sockmgr("logs", "job").stdout.splitlines()[0].endswith("job@8.1 | other")


def test_with_json_each_line_is_an_object(manager: FakeManager) -> None:
    manager.tell("one")
    assert json.loads(sockmgr("logs", "--json").stdout) == {
        "time": 1.5, "level": "info", "source": "web@8.1", "service": "web", "event": "",
        "message": "one",
    }  # fmt: skip


def test_without_a_manager_and_a_journal_the_exit_code_is_3(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(path.parent))
    assert sockmgr("logs").exit_code == 3
    assert sockmgr("logs", "-f").exit_code == 3


# --- From the journal ----------------------------------------------------------------------------


def test_the_journal_is_asked_for_the_unit_that_the_manager_names(
    manager: FakeManager, journal: Entries
) -> None:
    asked = journal(entry("hello"), RECORD)
    manager.place = JournalPlace(unit="shop.service")
    shown = sockmgr("logs").stdout.splitlines()
    assert [line.split(" ", 2)[2] for line in shown] == [
        "web@8.1 | hello",
        "E aborted service=web",
    ]
    assert "_SYSTEMD_UNIT=shop.service" in asked.read_text()


def test_the_unit_of_a_users_manager_is_asked_for_with_the_user(
    manager: FakeManager, journal: Entries
) -> None:
    asked = journal(entry("hello"))
    manager.place = JournalPlace(unit="shop.service", user=1000)
    sockmgr("logs")
    assert "_SYSTEMD_USER_UNIT=shop.service _UID=1000" in asked.read_text()


def test_the_last_lines_of_the_journal_are_those_about_the_service(
    manager: FakeManager, journal: Entries
) -> None:
    manager.place = JournalPlace(unit="shop.service")
    other = entry("other", SYSLOG_IDENTIFIER="job@1.1")
    journal(entry("one"), RECORD, other, entry("two"), other)
    shown = sockmgr("logs", "web", "-n", "2").stdout.splitlines()
    assert [line.split(" ", 2)[2] for line in shown] == ["E aborted service=web", "web@8.1 | two"]


def test_following_the_journal_goes_on_after_the_last_entry_that_was_read(
    manager: FakeManager, journal: Entries
) -> None:
    manager.place = JournalPlace(unit="shop.service")
    asked = journal(entry("one"), entry("two"))
    sockmgr("logs", "-f", "-n", "1")
    assert "--after-cursor=at two" in asked.read_text().splitlines()[1]
    assert "--follow" in asked.read_text().splitlines()[1]


def test_what_is_no_text_in_the_journal_is_shown_as_far_as_it_can_be(
    manager: FakeManager, journal: Entries
) -> None:
    manager.place = JournalPlace(unit="shop.service")
    journal(entry([104, 105, 255]), entry(None), entry(["once", "twice"]))
    shown = sockmgr("logs").stdout.splitlines()
    assert [line.split(" | ")[1] for line in shown] == ["hi\\xff", "", "once"]


def test_pieces_of_a_long_line_are_marked_wherever_they_come_from(
    manager: FakeManager, journal: Entries
) -> None:
    piece = {"time": 1.5, "level": "info", "source": "web@8.1", "service": "web", "event": ""}
    manager.ring.add(LogLine(**piece, message="begun", partial=True))  # type: ignore[arg-type]
    manager.ring.add(LogLine(**piece, message="ended"))  # type: ignore[arg-type]
    assert [line[20:] for line in sockmgr("logs").stdout.splitlines()] == [
        "web@8.1 \\ begun",
        "web@8.1 | ended",
    ]
    as_json = [json.loads(line) for line in sockmgr("logs", "--json").stdout.splitlines()]
    assert [line.get("partial") for line in as_json] == [True, None]
    manager.place = JournalPlace(unit="shop.service")
    journal(entry("whole"), {**entry("cut"), "_LINE_BREAK": "line-max"}, entry("rest"))
    marks = [line.split()[3] for line in sockmgr("logs").stdout.splitlines()]
    assert marks == ["|", "\\", "|"]


def test_a_journal_that_may_not_be_read_is_an_error_that_says_who_may(
    manager: FakeManager, journal: Entries
) -> None:
    manager.place = JournalPlace(unit="shop.service")
    journal(code=1, complaint="No journal files were opened due to insufficient permissions.")
    result = sockmgr("logs")
    assert result.exit_code == 1
    assert "insufficient permissions" in result.stderr
    assert "systemd-journal" in result.stderr


def test_without_a_manager_the_journal_is_read_of_the_units_that_its_name_may_have(
    path: Path, journal: Entries
) -> None:
    asked = journal(entry("its last words"))
    path.with_name("sockmgr.toml").write_text(CONFIG)
    result = sockmgr("logs", "-c", "sockmgr.toml")
    assert result.exit_code == 0
    assert result.stdout.endswith("web@8.1 | its last words\n")
    assert "no manager answers" in result.stderr
    assert "_SYSTEMD_UNIT=shop-of-a-test.service" in asked.read_text()
    assert "_SYSTEMD_UNIT=sockmgr@shop-of-a-test.service" in asked.read_text()


def test_without_a_manager_a_journal_that_knows_nothing_leaves_the_exit_code_3(
    path: Path, journal: Entries
) -> None:
    del path
    journal()
    assert sockmgr("logs").exit_code == 3
