"""The dispatcher's own event loop, on real descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sockmgr.programs.dispatcher.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def readable() -> int:
    """Return the reading end of a pipe in which something is; its number is the lowest free one."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    os.close(writer)
    return reader


def test_what_happened_to_a_closed_descriptor_is_not_told_of_the_one_that_has_its_number(
    loop: Loop,
) -> None:
    """Which of the two that are ready has its turn first is not said: each replaces the other."""
    told: list[str] = []
    one, other = readable(), readable()
    empty, writer = os.pipe()

    def replace(fd: int, name: str) -> None:
        told.append(name)
        if len(told) == 1:
            victim = other if fd == one else one
            loop.remove_reader(victim)
            os.dup2(empty, victim)
            loop.add_reader(victim, lambda: told.append("nothing is there to read"))

    loop.add_reader(one, lambda: replace(one, "one"))
    loop.add_reader(other, lambda: replace(other, "other"))
    loop.turn(0)
    assert told in (["one"], ["other"])
    os.write(writer, b"x")
    loop.turn(10)
    assert "nothing is there to read" in told
    for fd in (one, other, empty, writer):
        os.close(fd)
