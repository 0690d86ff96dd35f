"""The figures in the memory that a worker shares, whatever it writes there."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator

import pytest

from sockmgr.api.figures import Figures
from sockmgr.kernel.heartbeat import HeartbeatMemory
from sockmgr.worker.figures import BEGUN, BUCKETS, FAILED, LAYOUT, MARK, SIZE, TIMES


@pytest.fixture
def memory() -> Iterator[HeartbeatMemory]:
    memory = HeartbeatMemory.create()
    yield memory
    memory.close()


def write(memory: HeartbeatMemory, **words: int) -> None:
    """Write these words, `mark`, `begun`, `failed` and `time`, the last bucket."""
    places = {"mark": MARK, "begun": BEGUN, "failed": FAILED, "time": TIMES + BUCKETS - 1}
    for name, word in words.items():
        os.pwrite(memory.fd, struct.pack("@q", word), places[name] * 8)


def test_a_worker_that_counts_is_told_from_one_that_does_not(memory: HeartbeatMemory) -> None:
    assert memory.figures() is None
    write(memory, mark=LAYOUT)
    assert memory.figures() == Figures()
    write(memory, begun=7, failed=2, time=6)
    figures = memory.figures()
    assert figures
    assert (figures.begun, figures.failed, figures.answered, figures.waiting) == (7, 2, 6, 1)
    write(memory, mark=LAYOUT + 1)  # of a later version, which means something else
    assert memory.figures() is None


def test_nonsense_counts_as_nothing(memory: HeartbeatMemory) -> None:
    for nonsense in ({"begun": -1}, {"failed": 1 << 62}, {"time": -(1 << 63)}):
        write(memory, **{"mark": LAYOUT, "begun": 7, "failed": 2, "time": 5, **nonsense})
        assert memory.figures() is None
    draw = random.Random(7)
    for _ in range(1000):
        os.pwrite(memory.fd, draw.randbytes(SIZE), 0)
        write(memory, mark=LAYOUT)
        assert memory.figures() is None
    for size in (SIZE - 1, 33, 32, 0):
        os.truncate(memory.fd, size)
        assert memory.figures() is None
    os.truncate(memory.fd, 1 << 40)  # it may grow as it likes, and nobody reads that
    assert memory.figures() is None
