"""`sockmgr events`: a line an event, in whichever manager it happens."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sockmgr.manager.logs.events import EventLog
from tests.helpers.command_line import manager, path, sockmgr
from tests.helpers.fake_manager import FakeManager, happen, serving

__all__ = ["manager", "path"]  # fixtures


@contextlib.contextmanager
def following(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "sockmgr", "events", *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(stream: object) -> str:
    """Return the next line of a stream, without the time that an event begins with."""
    line = stream.readline()  # type: ignore[attr-defined]
    return str(line).rstrip("\n").split(" ", 2)[-1] if line[:2].isdigit() else line.rstrip("\n")


def test_the_last_events_are_shown_with_their_time_of_whom_they_are_and_why(
    manager: FakeManager,
) -> None:
    manager.happen("one", "two", "three")
    manager.record("committed", service="web", generation=8, draining=2)
    shown = sockmgr("events", "--no-follow", "-n", "2").stdout.splitlines()
    assert [line.split(" ", 2)[2] for line in shown] == [
        "I web@8.1 worker ended: three pid=8001",
        "I web@8 committed draining=2",
    ]


def test_only_what_is_about_a_service_is_shown_if_one_is_named(manager: FakeManager) -> None:
    manager.happen("one")
    manager.happen("other", service="job")
    shown = sockmgr("events", "job", "--no-follow").stdout
    assert "other" in shown
    assert "one" not in shown


def test_with_json_each_event_is_an_object(manager: FakeManager) -> None:
    manager.happen("one")
    found = json.loads(sockmgr("events", "--no-follow", "--json").stdout)
    assert list(found) == [
        "id", "time", "level", "event", "service", "generation", "worker", "what", "why", "fields",
    ]  # fmt: skip
    assert found["why"] == "one"


def test_nothing_in_an_event_is_taken_for_a_sequence_by_the_terminal(manager: FakeManager) -> None:
    manager.happen("a\x1b[2Jb\nc")
    assert "a\\x1b[2Jb c" in sockmgr("events", "--no-follow").stdout


def test_without_a_manager_the_exit_code_is_3(path: Path) -> None:
    del path
    assert sockmgr("events").exit_code == 3
    assert sockmgr("events", "--no-follow").exit_code == 3


def test_it_goes_on_with_the_next_manager_and_shows_each_event_once(path: Path) -> None:
    with contextlib.ExitStack() as running:
        first = running.enter_context(serving(path))
        first.happen("one")
        with following("-n", "1") as process:
            assert line_of(process.stdout) == "I web@8.1 worker ended: one pid=8001"
            first.happen("two")
            assert line_of(process.stdout) == "I web@8.1 worker ended: two pid=8001"
            running.close()
            assert line_of(process.stderr) == "the manager has left; waiting for the next one"
            history = EventLog()
            history.resume(*first.log.kept)
            happen(history, "worker ended", worker="web@8.1", how="meanwhile")
            second = running.enter_context(serving(path, log=history))
            assert line_of(process.stdout) == "I web@8.1 worker ended: meanwhile"
            second.happen("three")
            assert line_of(process.stdout) == "I web@8.1 worker ended: three pid=8001"
            assert line_of(process.stderr) == "the next manager answers"


def test_it_says_when_the_next_manager_does_not_know_what_happened_before(path: Path) -> None:
    with contextlib.ExitStack() as running:
        running.enter_context(serving(path)).happen("one")
        with following("-n", "1") as process:
            line_of(process.stdout)
            running.close()
            running.enter_context(serving(path)).happen("new")
            assert line_of(process.stdout) == "I web@8.1 worker ended: new pid=8001"
            told = [line_of(process.stderr) for _ in range(3)]
            assert told[2] == "events were missed: the manager does not have them any more"


def test_it_waits_no_longer_for_the_next_manager_than_it_was_told(path: Path) -> None:
    with contextlib.ExitStack() as running:
        running.enter_context(serving(path)).happen("one")
        with following("--timeout", "3") as process:
            line_of(process.stdout)
            running.close()
            assert process.wait(30) == 3
            assert process.stderr
            assert "no manager answers" in process.stderr.read()


def test_a_closed_pipe_ends_it_without_a_trace(manager: FakeManager) -> None:
    with following() as process:
        manager.happen("one")
        line_of(process.stdout)
        assert process.stdout
        process.stdout.close()
        manager.happen("two")
        assert process.stderr
        assert process.stderr.read() == ""
        assert process.wait(30) == 0
