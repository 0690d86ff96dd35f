"""Clients in C: `clients.c`, built for one measurement."""

from __future__ import annotations

import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the clients of one run say. Waits: seconds from connect(2) to a worker's hands."""

    answered: int
    seconds: float
    p50: float
    p99: float
    cpu: float  # seconds of processor time of the clients themselves

    @property
    def rate(self) -> float:
        """Connections a second."""
        return self.answered / self.seconds


@dataclass(frozen=True, slots=True)
class Clients:
    """The program, for as long as its directory is there."""

    program: Path

    @classmethod
    @contextmanager
    def built(cls) -> Iterator[Self]:
        """Compile it."""
        with tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as name:
            program = Path(name) / "clients"
            source = Path(__file__).with_name("clients.c")
            subprocess.run(["cc", "-O2", "-o", program, source], check=True)
            yield cls(program)

    def run(self, address: tuple[str, int], kind: str, many: int, seconds: float) -> Run:
        """Let it connect for so long; each connection must be answered."""
        argv = [str(self.program), str(address[1]), kind, str(many), str(seconds)]
        before = _waited_for()
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        answered, failed, took, p50, p99 = map(float, said.split())
        assert not failed, f"{failed:.0f} connections failed"
        return Run(
            answered=int(answered), seconds=took, p50=p50 / 1e6, p99=p99 / 1e6,
            cpu=_waited_for() - before,
        )  # fmt: skip


def _waited_for() -> float:
    """Return the processor time of all children that have ended (getrusage(2))."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
