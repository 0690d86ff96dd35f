"""The targets of `make fuzz` take their corpus and some edits of it."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.mutating import mutated
from tests.fuzz.targets import TARGETS, corpus


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_our_errors_comes_of_the_corpus_and_of_edits_of_it(name: str) -> None:
    start, draw = corpus(name), random.Random(name)
    assert start
    for data in (*start, *(mutated(draw, draw.choice(start), start) for _ in range(200))):
        TARGETS[name](data)
