"""Sizes and durations, as a person reads them, and as units of systemd write them."""

from __future__ import annotations

import pytest

from sockmgr.terminal.format import span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20", 20.0), ("1min 30s", 90.0), ("500ms", 0.5), ("2h", 7200.0), ("1 day 1.5hr", 91800.0),
        ("", None), ("infinity", None), ("3 months", None), ("1m,2s", None), ("-1s", None),
    ],
)  # fmt: skip
def test_a_time_span_of_systemd_is_read_or_is_none(text: str, seconds: float | None) -> None:
    assert span(text) == seconds
