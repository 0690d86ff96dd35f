"""The golden transcripts still hold, and together they take every step that the tables allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from sockmgr.fleet.generation import GENERATION_STEPS, WORKER_STEPS, Generation, Worker
from sockmgr.fleet.messages import Phase, State
from tests.fleet.transcripts import files, replay


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_a_transcript_is_what_the_fleet_answers_today(path: Path) -> None:
    assert replay(path.read_text()) == path.read_text()


def test_the_transcripts_take_every_step_of_both_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: set[tuple[State | Phase, State | Phase]] = set()
    worker_becomes, generation_becomes = Worker.become, Generation.become

    def worker_spy(self: Worker, state: State, *rest: float) -> None:
        taken.add((self.state, state))
        worker_becomes(self, state, *rest)

    def generation_spy(self: Generation, phase: Phase, *rest: float) -> None:
        taken.add((self.phase, phase))
        generation_becomes(self, phase, *rest)

    monkeypatch.setattr(Worker, "become", worker_spy)
    monkeypatch.setattr(Generation, "become", generation_spy)
    for path in files():
        replay(path.read_text())

    allowed: set[tuple[State | Phase, State | Phase]] = set()
    for worker_state, states in WORKER_STEPS.items():
        allowed |= {(worker_state, state) for state in states}
    for generation_phase, phases in GENERATION_STEPS.items():
        allowed |= {(generation_phase, phase) for phase in phases}
    assert taken == allowed
