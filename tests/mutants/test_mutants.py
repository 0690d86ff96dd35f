"""Each edit can still be made, and some are tried: the suite is able to fail. `make mutants` tries
all of them, which takes longer than all other tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet import mutants as fleet
from tests.fleet.mutants import Mutant, mutated
from tests.mutants import shell
from tests.mutants.__main__ import Trees, of_fleet, of_shell, of_simulation
from tests.simulation import mutants as simulation

EVERY = (*shell.MUTANTS, *fleet.MUTANTS, *simulation.MUTANTS)
# One that each kind of test notices: transcripts, examples, properties, those of the dispatcher,
# schedules, and tests of what is around.
TRIED = (
    "drain before quiet",
    "take a guess for proof",
    "count the full as room",
    "do not pass on what a Feed changes",
    "adopt half a queue",
)


def test_each_edit_can_be_made_and_has_a_name_of_its_own() -> None:
    for mutant in EVERY:
        compile(mutated(mutant), mutant.module, "exec")
    assert len({mutant.name for mutant in EVERY}) == len(EVERY)
    assert {mutant.module for mutant in shell.MUTANTS} == shell.TESTS.keys()
    for tests in shell.TESTS.values():
        assert all((Path(__file__).parents[1] / each).exists() for each in tests)


@pytest.mark.parametrize("name", TRIED)
def test_the_tests_notice_that_we(name: str, tmp_path: Path) -> None:
    [mutant] = [each for each in EVERY if each.name == name]
    assert noticed(mutant, tmp_path)


def noticed(mutant: Mutant, place: Path) -> str:
    if mutant in shell.MUTANTS:
        return of_shell(mutant, Trees(place).mine())
    return of_fleet(mutant) if mutant in fleet.MUTANTS else of_simulation(mutant)
