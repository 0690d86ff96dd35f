"""Every step of a manager is a crash point, and one that is chosen ends it there, once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from sockmgr.fleet.messages import Action, Fact
from sockmgr.manager.crash_points import NAMES, TOLD, VARIABLE, Point, name_of
from sockmgr.programs.dispatcher import messages
from tests.crash_points.deeds import DEEDS, REPEATS, UNREACHED

PACKAGE = Path(__file__).parents[2] / "sockmgr"


def test_each_fact_and_action_of_a_fleet_is_a_point() -> None:
    kinds = get_args(Fact) + get_args(Action)
    names = [name_of(kind) for kind in kinds]
    assert len(names) == len(set(names)) > 35
    assert set(names) < NAMES
    assert not set(names) & set(Point)


def test_each_other_point_is_reached_in_one_place() -> None:
    reached: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        reached.update(
            re.findall(r"\breached\((?:crash_points\.)?Point\.(\w+)\)", path.read_text())
        )
    assert reached == Counter({point.name: 1 for point in Point})


def test_all_that_a_dispatcher_is_told_is_a_point() -> None:
    _, _, listed = (messages.__doc__ or "").partition("The manager says what is to be.")
    listed, _, _ = listed.partition("The dispatcher says what happens:")
    first = {
        line.split()[0]
        for line in listed.splitlines()
        if line.startswith("    ") and not line.startswith("     ")
    }
    assert first == set(TOLD)


def test_something_leads_to_each_point_or_a_reason_says_why_nothing_does() -> None:
    assert DEEDS.keys() | UNREACHED.keys() == NAMES
    assert not DEEDS.keys() & UNREACHED.keys()
    assert REPEATS.keys() < DEEDS.keys()


PROGRAM = """
from sockmgr.manager.crash_points import Point, check, reached, told
check()
for _ in range(3):
    reached(Point.ALL_SAVED)
    told("attach")
    print("went on", flush=True)
"""


def run(at: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, VARIABLE: at, **more}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("name", "times"), [("all-saved:2", 1), ("tell-attach", 0)])
def test_a_process_is_killed_at_the_point_and_leaves_a_mark_and_the_next_goes_on(
    name: str, times: int, tmp_path: Path
) -> None:
    done = run(f"{tmp_path}/{name}")
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.count("went on") == times
    (mark,) = tmp_path.iterdir()
    assert mark.name == f"crashed-at-{name.partition(':')[0]}"
    assert run(name, RUNTIME_DIRECTORY=str(tmp_path)).stdout.count("went on") == 3


@pytest.mark.parametrize("name", ["no-such-point", "all-saved:often"])
def test_a_point_that_there_is_not_is_refused(name: str) -> None:
    done = run(name)
    assert done.returncode == 1
    assert f"there is no point {name}" in done.stderr
