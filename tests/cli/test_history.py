"""`sockmgr rollback` and `sockmgr history`: what they ask, print and exit with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.api.varlink import PastGeneration
from sockmgr.errors import ControlError
from tests.helpers.command_line import sockmgr
from tests.helpers.fake_manager import ABORTED, FakeManager, a_verdict, serving

SEVEN = PastGeneration(
    service="web", generation=7, began=1.7e9, origin="reload", by="deploy", rollback=0,
    verdict="committed", reason="", served=187_200.0, serves=False, directory="/srv/1",
    release="a1\x1b[2J", kept=True,
)  # fmt: skip
EIGHT = PastGeneration(
    service="web", generation=8, began=1.7e9, origin="rollback", by="", rollback=6,
    verdict="aborted", reason="worker 8.1 exited", served=None, serves=False, directory="/srv/0",
    release="", kept=False,
)  # fmt: skip
OTHER = PastGeneration(
    service="job", generation=1, began=1.7e9, origin="start", by="", rollback=0,
    verdict="committed", reason="", served=9.0, serves=True, directory="/", release="", kept=True,
)  # fmt: skip


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeManager]:
    path = tmp_path / "shop.sock"
    monkeypatch.setenv("SOCKMGR_CONTROL", str(path))
    with serving(path, past=(SEVEN, EIGHT, OTHER)) as running:
        yield running


def test_a_rollback_names_what_it_brings_back_and_waits_for_the_verdict(
    manager: FakeManager,
) -> None:
    manager.verdicts = [a_verdict(release="a1b2", rollback=6)]
    done = sockmgr("rollback", "web", "--to", "6")
    assert done.exit_code == 0
    assert done.stdout.startswith(
        "generation 8 (release a1b2), a rollback to 6, is serving: 0/4 workers in 2.1 s"
    )
    assert "web: generation 8 booting, 0/4 ready" in done.stderr
    assert manager.rolled_back == [("web", 6)]


def test_a_rollback_without_arguments_leaves_the_choice_to_the_manager(
    manager: FakeManager,
) -> None:
    assert sockmgr("rollback", "--json").exit_code == 0
    assert manager.rolled_back == [("", None)]


def test_a_rollback_that_is_aborted_or_refused_is_exit_code_1(manager: FakeManager) -> None:
    manager.verdicts = [ABORTED]
    assert sockmgr("rollback").exit_code == 1
    manager.error = ControlError("nothing is known", means="nothing was changed", do="reload")
    done = sockmgr("rollback")
    assert done.exit_code == 1
    assert done.stderr == "error: nothing is known\n  nothing was changed\n  reload\n"


def test_a_generation_before_the_first_is_a_wrong_usage(manager: FakeManager) -> None:
    assert sockmgr("rollback", "--to", "0").exit_code == 2
    assert manager.rolled_back == []


@pytest.mark.usefixtures("manager")
def test_the_history_is_a_table_of_generations_in_which_no_name_is_obeyed() -> None:
    done = sockmgr("history")
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    seven, eight, other = (line.split() for line in done.stdout.splitlines()[2:])
    assert (seven[:2], seven[4:]) == (
        ["*", "web@7"], ["2d4h", "committed", "a1\\x1b[2J", "reload", "by", "deploy", "/srv/1"],
    )  # fmt: skip
    assert (eight[0], eight[3:]) == (
        "web@8",
        ["-", "aborted", "-", "rollback", "to", "6", "/srv/0", "worker", "8.1", "exited"],
    )
    assert other[:2] == [">", "job@1"]


@pytest.mark.usefixtures("manager")
def test_the_history_of_one_service_in_json_has_the_public_keys() -> None:
    (found,) = json.loads(sockmgr("history", "job", "--json").stdout)
    assert list(found) == [
        "service", "generation", "began", "origin", "by", "rollback", "verdict", "reason",
        "served", "serves", "directory", "release", "kept",
    ]  # fmt: skip
