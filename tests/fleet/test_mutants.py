"""The suite is able to fail: every mutant turns it red, and the real code is green the same way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fleet.mutants import MUTANTS, Mutant, mutated

ROOT = Path(__file__).parents[2]


def attempt(*name: str) -> str:
    """Run the suite in a process of its own, since a mutant takes the place of what is imported."""
    command = [sys.executable, "-m", "tests.fleet.mutants", *name]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stderr
    return run.stdout.splitlines()[-1]


def test_the_real_code_is_green() -> None:
    assert attempt() == "green"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_suite_notices_that_we(mutant: Mutant) -> None:
    assert mutated(mutant)
    assert attempt(mutant.name) != "green"
