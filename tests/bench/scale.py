"""Many workers of one manager: what their start, a reload and their stop take, and how it grows.

The workers are a loop of accept(2) in C, so that what is measured is the manager. Its processor
time is of itself alone; the wall time includes the boots, and means little on a busy machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.costs import Pinger, directory, pss
from tests.bench.report import Goal, Section, narrate, number, table
from tests.e2e.harness import Manager, wait_for

SOURCE = Path(__file__).with_name("accept.c")
PING_PAUSE = 0.01  # seconds between two calls that tell of a stall: they cost the manager time
PATIENCE = 300.0  # seconds until a phase that does not end is given up
TICK = 1 / os.sysconf("SC_CLK_TCK")
PHASES = ("start", "reload", "stop")
LIMITS = {"start": 4.0, "reload": 6.0, "stop": 3.0}  # seconds, of 1000 workers
GROWTH = 12  # times at most, from 100 workers to 1000

STALLS = (
    "looks, exits and spawns take turns in portions (at most 8 spawns in one); a thousand "
    "processes that run at the same time keep the manager off the processors as well"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the workers are spread: services, and workers of each; `accept` as in the config.

    `boots` is `start_concurrency`, 0 for the default. `surge` is as in the config.
    """

    name: str
    services: int
    workers: int
    accept: str = "shared"
    boots: int = 0
    surge: str = "100%"

    @property
    def total(self) -> int:
        """All workers."""
        return self.services * self.workers


LAYOUTS = (
    Layout(name="4, shared", services=1, workers=4),
    Layout(name="100, shared", services=1, workers=100),
    Layout(name="300, shared", services=1, workers=300),
    Layout(name="1000, shared", services=1, workers=1000),
    Layout(name="1000, shared, all boot at once", services=1, workers=1000, boots=1000),
    Layout(name="100, per worker", services=1, workers=100, accept="per-worker"),
    # A listener has room for 512 queues.
    Layout(name="300, per worker", services=1, workers=300, accept="per-worker", surge="50%"),
    Layout(name="50 services of 10", services=50, workers=10),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What one phase took: seconds of time, of the manager's processor time, the longest stall."""

    wall: float
    cpu: float
    stall: float


@dataclass(slots=True, kw_only=True)
class Figures:
    """What one layout took, by phase, and the manager's memory (PSS, bytes) when all served."""

    layout: Layout
    pss: int = 0
    phases: dict[str, Phase] = field(default_factory=dict)


def section(tool: str = "") -> Section:
    """Measure each layout with `tool` in its name, and return the part of the document on it."""
    if shutil.which("cc") is None:
        narrate("many workers: not measured, there is no C compiler (cc)")
        return Section(title="Many workers", text="Not measured: there was no C compiler (cc).")
    with tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as name:
        program = Path(name, "accept")
        subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCE)], check=True)
        found = {layout.name: measure(layout, program) for layout in LAYOUTS if tool in layout.name}
    about = (
        "Each worker is a loop of `accept(2)` in C. A reload counts until the last old worker has "
        "gone, a stop until the manager has. The processor time is of the manager itself. The "
        "longest stall is the longest wait for the answer to a cheap call on the control socket."
    )
    head = (
        "workers", "phase", "seconds", "manager's processor time (s)", "of it a worker (ms)",
        "longest stall (ms)", "memory of the manager (PSS, MB)",
    )  # fmt: skip
    rows = [row for one in found.values() for row in _rows(one)]
    goals = tuple(_goals(found))
    return Section(title="Many workers", text=f"{about}\n\n{table(head, rows)}", goals=goals)


def _rows(one: Figures) -> Iterator[tuple[str, ...]]:
    for name, phase in one.phases.items():
        a_worker = phase.cpu / one.layout.total * 1000
        figures = (phase.wall, phase.cpu, a_worker, phase.stall * 1000, one.pss / 2**20)
        yield (one.layout.name, name, *map(number, figures))


def _goals(found: dict[str, Figures]) -> Iterator[Goal]:
    if len(found) < len(LAYOUTS):
        return
    few, some, many = (found[f"{n}, shared"] for n in (4, 100, 1000))
    for name in PHASES:
        big, small = many.phases[name], some.phases[name]
        for what, value, limit, unit in (
            ("", big.wall, LIMITS[name], "s"),
            (", manager's processor time a worker", big.cpu / many.layout.total * 1000, 4, "ms"),
            (", longest stall", big.stall * 1000, 50, "ms"),
            (", times as long as that of 100", big.wall / small.wall, GROWTH, ""),
            (", times the processor time of 100", big.cpu / small.cpu, GROWTH, ""),
        ):
            tried = STALLS if "stall" in what else ""
            yield Goal(what=f"{name} of 1000 workers{what}", value=value, limit=limit, unit=unit,
                       tried=tried)  # fmt: skip
    services = found["50 services of 10"].phases["reload"].wall
    yield Goal(what="reload of 50 services of 10 workers", value=services, limit=4, unit="s")
    for one, limit in ((few, 22), (many, 45)):
        what = f"memory of a manager of {one.layout.total} workers (PSS)"
        yield Goal(what=what, value=one.pss / 2**20, limit=limit, unit="MB",
                   tried="imports that a verb alone needs are made by it; the rest is the "
                   "interpreter, asyncio and msgspec")  # fmt: skip


# --- One layout ---------------------------------------------------------------------------------


def measure(layout: Layout, program: Path) -> Figures:
    """Start a manager with these workers, reload it and stop it."""
    narrate(f"{layout.name} workers …")
    figures = Figures(layout=layout)
    with directory() as path:
        manager = Manager(path, _config(layout, program))
        try:
            with _phase(figures, "start", manager):
                manager.start()
                _wait(manager, " serving service=", layout.services)
            figures.pss = pss(manager.pid)
            with _phase(figures, "reload", manager):
                os.kill(manager.pid, signal.SIGHUP)
                _wait(manager, " committed service=", layout.services)
                _wait(manager, " worker ended ", layout.total)
            with _phase(figures, "stop", manager):
                os.kill(manager.pid, signal.SIGTERM)
                os.waitid(os.P_PID, manager.pid, os.WEXITED | os.WNOWAIT)
        finally:
            manager.close()
    return figures


@contextmanager
def _phase(figures: Figures, name: str, manager: Manager) -> Iterator[None]:
    began, cpu = time.monotonic(), 0.0 if name == "start" else _cpu(manager.pid)
    with Pinger(manager.control, PING_PAUSE) as pinger:
        yield
        wall = time.monotonic() - began
    cpu = _cpu(manager.pid) - cpu
    figures.phases[name] = Phase(wall=wall, cpu=cpu, stall=pinger.longest)


def _cpu(pid: int) -> float:
    """Return utime and stime of a process, of a dead one that is not reaped, too."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return sum(map(int, stat.rpartition(")")[2].split()[11:13])) * TICK


def _wait(manager: Manager, what: str, count: int) -> None:
    """Wait until the log has said this so often: to ask the manager would cost it time."""

    def is_said() -> bool:
        log = manager.log
        if not manager.alive:
            raise RuntimeError(f"the manager has ended: {log[-1000:]}")
        return log.count(what) >= count

    wait_for(is_said, f"{count} times {what}", timeout=PATIENCE)


def _config(layout: Layout, program: Path) -> str:
    names = [f"s{n}" for n in range(layout.services)]
    # Each has an address of its own, as listeners must: all of 127.0.0.0/8 is this machine.
    listeners = [f'{name} = "tcp://127.0.0.{n}:0"' for n, name in enumerate(names, 1)]
    services = [
        f"""
[service.{name}]
command = ["{program}", "{{{name}}}"]
listen = ["{name}"]
workers = {layout.workers}
accept = "{layout.accept}"
[service.{name}.rollout]
surge = "{layout.surge}"
start_concurrency = {layout.boots}
"""
        for name in names
    ]
    return "\n".join(["[listen]", *listeners, *services])
