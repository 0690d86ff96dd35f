"""Schedules of a pretended machine break no promise; those that did are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation import stories

ROOT = Path(__file__).parents[2]
SCHEDULES, PARTS = 20_000, 4  # `make simulate SEEDS=100000` plays others, and more


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own, where the dispatcher gets pretended sockets."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def first() -> int:
    """Return a seed that is another one for each commit, and the same each time for one commit.

    So each change is tried by schedules that nobody has seen, and what is red comes again.
    """
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD^{tree}"]
    tree = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return int(tree.stdout[:8] or "0", 16)  # a tree that was not cloned has none


@pytest.mark.parametrize("part", range(PARTS))
def test_schedules_break_no_promise(
    part: int, record_property: Callable[[str, object], None]
) -> None:
    number = SCHEDULES // PARTS
    seed = first() + part * number
    record_property("schedules", f"{number} from seed {seed}")
    run = simulate(str(number), "--first", str(seed))
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{number} schedules" in run.stdout


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
