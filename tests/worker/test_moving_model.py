"""A few thousand steps of random moves, requests, deaths and reloads; the program plays more."""

from __future__ import annotations

import pytest

from tests.worker import moving_model


@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize("protocol", moving_model.PROTOCOLS)
def test_no_byte_is_lost_or_doubled_or_given_to_another_client(protocol: str, seed: int) -> None:
    played, moved = moving_model.play(protocol, 1000, seed)
    assert played.total() == 1000
    assert played["reload"]
    assert played["die"]
    assert moved > 50
