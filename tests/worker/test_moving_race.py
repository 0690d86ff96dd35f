"""A few hundred moves at random instants; the program sees ten thousand."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.worker import moving_race
from tests.worker.moving import service

MOVES = 300


@pytest.mark.parametrize("kind", moving_race.KINDS)
def test_every_answer_is_right_and_in_order(kind: tuple[str, str], tmp_path: Path) -> None:
    with service(tmp_path) as web:
        racers = asyncio.run(moving_race.race(web, MOVES, [kind]))
    assert sum(racer.moves for racer in racers) >= MOVES
    assert all(racer.answers > 10 for racer in racers)
