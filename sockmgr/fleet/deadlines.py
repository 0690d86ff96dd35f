"""The instants at which something is due, ordered, so that the next one is found without a walk."""

from __future__ import annotations

import math
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

SLACK = 64  # entries that are out of date and may stay until the heap is built anew


class Deadlines(Generic[Key]):
    """At most one instant a key. Each change costs O(log n), and so does each key that is due.

    A heap cannot give up an entry from its middle. One that is out of date stays until it comes to
    the top, or until most entries are out of date.
    """

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._entries = 0  # so far: of equal instants the older entry is first, not the lower key

    def set(self, key: Key, at: float) -> None:
        """Have `key` due at an instant; inf is never."""
        if at == math.inf:
            self._at.pop(key, None)
        elif self._at.get(key) != at:
            self._at[key] = at
            self._entries += 1
            heappush(self._heap, (at, self._entries, key))
            # Each deadline that moves leaves an old entry, so the heap is built anew at times.
            # So a heap of long deadlines, most of which never come, does not grow for ever.
            if len(self._heap) > 2 * len(self._at) + SLACK:
                self._heap = [entry for entry in self._heap if self._holds(entry)]
                heapify(self._heap)

    def drop(self, key: Key) -> None:
        self._at.pop(key, None)

    def of(self, key: Key) -> float:
        """Return when `key` is due; inf if never."""
        return self._at.get(key, math.inf)

    def first(self) -> float:
        """Return the next instant at which something is due; inf if there is none."""
        while self._heap and not self._holds(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> list[Key]:
        """Drop and return the keys that are due, whose instants have passed."""
        found = []
        while self.first() <= now:
            _, _, key = heappop(self._heap)
            del self._at[key]
            found.append(key)
        return found

    def _holds(self, entry: tuple[float, int, Key]) -> bool:
        return self._at.get(entry[2]) == entry[0]
