"""A turn of the event loop has few events, and all that are ready get their turn."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections import Counter
from collections.abc import Iterator

from sockmgr.kernel.selector import FewEvents
from tests.helpers.children import open_fds


@contextlib.contextmanager
def pipes(number: int) -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe() for _ in range(number)]
    try:
        yield made
    finally:
        for fd in (fd for ends in made for fd in ends):
            os.close(fd)


def test_a_turn_has_few_events_and_all_that_are_ready_get_theirs_in_turn() -> None:
    with contextlib.closing(FewEvents(most=8)) as selector, pipes(100) as made:
        for reader, writer in made:
            selector.register(reader, selectors.EVENT_READ)
            os.write(writer, b"x")
        turns = [selector.select(0) for _ in range(50)]
        assert {len(turn) for turn in turns} == {8}
        seen = Counter(key.fd for turn in turns for key, _ in turn)
        assert sorted(seen) == sorted(reader for reader, _ in made)
        assert set(seen.values()) == {4}


def test_it_tells_of_reading_writing_and_hangups_what_was_asked_for() -> None:
    ours, theirs = socket.socketpair()
    with contextlib.closing(FewEvents()) as selector, ours, theirs:
        selector.register(ours, selectors.EVENT_WRITE, "data")
        assert [(key.data, mask) for key, mask in selector.select()] == [
            ("data", selectors.EVENT_WRITE)
        ]
        selector.modify(ours, selectors.EVENT_READ)
        assert selector.select(0) == []
        assert selector.select(0.001) == []
        theirs.close()
        assert [mask for _, mask in selector.select(None)] == [selectors.EVENT_READ]
        selector.unregister(ours)
        assert selector.select(0) == []


def test_nothing_is_open_after_close() -> None:
    before = open_fds()
    FewEvents().close()
    assert open_fds() == before
