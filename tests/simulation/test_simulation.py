"""Schedules of a pretended machine break no promise; those that did are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import stories

ROOT = Path(__file__).parents[2]
FIRST, SCHEDULES = 0, 1600  # a few seconds; `make simulate SEEDS=100000` plays others, and more


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own, where the dispatcher gets pretended sockets."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_schedules_break_no_promise() -> None:
    run = simulate(str(SCHEDULES), "--first", str(FIRST))
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{SCHEDULES} schedules" in run.stdout


@pytest.mark.parametrize("path", stories.kept(), ids=lambda path: path.stem)
def test_what_was_mended_stays_so(path: Path) -> None:
    run = simulate("--story", str(path))
    assert run.returncode == 0, run.stdout + run.stderr
    for words in stories.read(path).tells:
        assert words in run.stdout, "the story is not about what it was kept for"


def test_a_seed_plays_the_same_each_time_also_alone() -> None:
    one, other = (simulate("--seed", "1234").stdout.split("> ", 1) for _ in range(2))
    assert one[1] == other[1]  # what comes before tells how long it took


def test_a_failure_is_told_by_its_seed_and_as_a_story_and_each_fails_again(tmp_path: Path) -> None:
    mutant = ("--mutant", "do not pass on what a Feed changes")
    told = simulate("640", "--first", "0", *mutant)
    assert told.returncode == 1
    seed = told.stdout.partition("\nseed ")[2].split()[0]
    assert simulate("--seed", seed, *mutant).returncode == 1
    _, _, kept = told.stdout.partition("as a story to keep:\n")
    assert len(kept.split("\n")) < 12, "it was not made short"
    (tmp_path / "kept.story").write_text(kept)
    again = simulate("--story", str(tmp_path / "kept.story"), *mutant)
    assert again.returncode == 1
    assert simulate("--story", str(tmp_path / "kept.story")).returncode == 0
