"""How uneven a random choice was, beside what the binomial distribution says. Measures nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """How uneven a random choice was, in many samples of so many connections each."""

    connections: int
    choices: int
    variations: Sequence[float]

    @property
    def usual(self) -> float:
        """The root of the mean of the squares: of these the binomial's expectation is known."""
        return math.sqrt(statistics.mean(self._squares))

    @property
    def expected(self) -> float:
        """What it is where each connection takes each of the choices with the same probability."""
        return math.sqrt((self.choices - 1) / self.connections)

    @property
    def error(self) -> float:
        """The standard error of `usual`, by how much the samples differ."""
        of_mean = statistics.stdev(self._squares) / math.sqrt(len(self._squares))
        return of_mean / (2 * self.usual)

    @property
    def _squares(self) -> Sequence[float]:
        return [variation**2 for variation in self.variations]
