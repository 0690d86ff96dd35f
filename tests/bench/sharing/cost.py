"""What one connection costs each way to share a listener: processor time, and whose it is."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.costs import cpu, directory
from tests.bench.dispatching.clients import Clients
from tests.bench.models import config
from tests.bench.report import narrate, number, table
from tests.bench.sharing import figures
from tests.e2e.harness import Manager
from tests.e2e.servers import Server

WORKERS = 2
ROUNDS = 3
SECONDS = 0.4
PROGRAM = (sys.executable, str(Path(__file__).parents[1] / "dispatching" / "worker.py"))
ACCEPTS = Server(example="", command=(*PROGRAM, "{http}"), workers=WORKERS)
TAKES = Server(example="", command=PROGRAM, workers=WORKERS)
WAYS: Mapping[str, tuple[Server, str, str]] = {
    "shared": (ACCEPTS, "shared", ""),
    "per-worker": (ACCEPTS, "per-worker", ""),
    "dispatch, round-robin": (TAKES, "dispatch", ""),
    "dispatch, least-connections": (TAKES, "dispatch", 'policy = "least-connections"'),
}
LOADS: Mapping[str, tuple[str, int]] = {
    "64 at a time": ("flood", 64),
    "2000 a second": ("pace", 2000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Microseconds of processor time for one connection."""

    manager: float
    workers: float
    clients: float

    @property
    def parts(self) -> Sequence[float]:
        return self.manager, self.workers, self.clients


Costs = Mapping[tuple[str, str], Cost]  # by load and way


def measure() -> Costs:
    """Return the medians of ROUNDS, in turn, so that all meet the same weather."""
    found: dict[tuple[str, str], list[Cost]] = {(load, way): [] for load in LOADS for way in WAYS}
    narrate("what a connection costs …")
    with Clients.built() as clients, ExitStack() as stack:
        # All are there all the time: a manager and workers that have nothing to do cost nothing.
        managers = {way: stack.enter_context(_serving(way)) for way in WAYS}
        for _ in range(ROUNDS):
            for (load, way), costs in found.items():
                costs.append(_cost(managers[way], clients, *LOADS[load]))
    return {key: _median(costs) for key, costs in found.items()}


@contextmanager
def _serving(way: str) -> Iterator[Manager]:
    server, model, more = WAYS[way]
    with directory() as path, Manager(path, config(server, model, path, more=more)) as manager:
        yield manager


def _cost(manager: Manager, clients: Clients, kind: str, many: int) -> Cost:
    workers = [worker["pid"] for worker in manager.workers()]
    address = manager.target().address
    assert isinstance(address, tuple)
    before = cpu(manager.pid), sum(map(cpu, workers))
    run = clients.run(address, kind, many, SECONDS)
    after = cpu(manager.pid), sum(map(cpu, workers))
    own, theirs = (
        (then - earlier) / run.answered * 1e6 for then, earlier in zip(after, before, strict=True)
    )
    return Cost(manager=own, workers=theirs, clients=run.cpu / run.answered * 1e6)


def _median(costs: Sequence[Cost]) -> Cost:
    manager, workers, clients = map(
        statistics.median, zip(*(cost.parts for cost in costs), strict=True)
    )
    return Cost(manager=manager, workers=workers, clients=clients)


def described(found: Costs) -> str:
    """Return what was measured, as Markdown."""
    about = (
        f"Processor time for one connection: {WORKERS} bare workers on asyncio (those of "
        "[connections passed on](#connections-passed-on)) behind a whole manager; clients in C. "
        f"*64 at a time*, as fast as it goes, and *2000 a second*, each alone as a rule; medians "
        f"of {ROUNDS} rounds of {SECONDS:g} s in turn. What the kernel does for a connection "
        "counts for the process that it interrupts, here the clients mostly: so does the program "
        "that chooses a queue."
    )
    rows = [
        (load, way, *(number(part) for part in cost.parts), number(sum(cost.parts)))
        for (load, way), cost in found.items()
    ]
    head = ("load", "model", "manager (µs)", "workers (µs)", "clients (µs)", "sum (µs)")
    return f"{about}\n\n{table(head, rows)}"


def draw(found: Costs, path: Path) -> None:
    """Draw a bar for each."""
    figures.bars(
        path, [f"{way}, {load}" for load, way in found], [cost.parts for cost in found.values()],
        across="microseconds of processor time for one connection",
        legend=("manager", "workers", "clients and kernel"),
    )  # fmt: skip
