"""Why some requests take longer while a service is reloaded: who had the processors meanwhile.

The counters of the scheduler are read every few milliseconds for each process that may matter
(/proc/PID/schedstat). A request that took longer than the steady 99th percentile is put down to the
kind of process that ran most while the request was under way.
"""

from __future__ import annotations

import bisect
import itertools
import math
import multiprocessing
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from sockmgr.kernel.procfs import descendants
from sockmgr.torture.load.result import Outcome, Row, percentile
from tests.bench.contender import UVICORN, WORKERS, environment, toml
from tests.bench.report import Section, narrate, number, table
from tests.bench.rollout import MODES, QUICK
from tests.e2e.apps import App
from tests.e2e.harness import Manager
from tests.helpers.load import Load, Result

RELOADS = 5
STEADY_SECONDS = 5.0
REST_SECONDS = 5.0
LOOK_SECONDS = 0.005
LOOKS_A_LIST = 4  # so many looks at the same processes, before they are listed anew
COLD = 3  # the first requests of a worker import and allocate what later ones find
FELT = 0.2  # of the time that a request took: with less, no process can be called its cause

CAUSES = {
    "boot": "the new workers boot",
    "cold": "first requests of a new worker",
    "manager": "the manager",
    "command": "`sockmgr reload` itself",
    "exit": "the old workers end",
    "other": "else: the workers themselves, the clients, the machine",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """For how long each process had run, in all, at an instant of time.monotonic()."""

    at: float
    ran: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """When a worker answered for the first and the last time, and how often."""

    first: float
    last: float
    starts: Sequence[float]


def _watch(manager: int, bench: int, control: Connection) -> None:
    """Sample until something comes on `control`; then send all samples there."""
    samples: list[Sample] = []
    pids: set[int] = set()
    while not control.poll(LOOK_SECONDS):
        if len(samples) % LOOKS_A_LIST == 0:
            pids = {manager, *descendants(manager), *descendants(bench)} - {os.getpid()}
        ran = {pid: _ran(pid) for pid in pids}
        samples.append(Sample(at=time.monotonic(), ran=ran))
    control.send(samples)


def _ran(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError):
        return 0.0


def measure() -> tuple[Counter[str], int, float]:
    """Reload a few times; return what slow requests are put down to, of how many, and the limit."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as name:
        directory = Path(name)
        app = App("asgi", directory)
        config = toml((*UVICORN, "--fd", "{http}", "app:app"), app)
        with Manager(directory, config, env=environment()) as manager:
            ours, its = multiprocessing.get_context("fork").Pipe()
            watching = multiprocessing.get_context("fork").Process(
                target=_watch, args=(manager.pid, os.getpid(), its)
            )
            watching.start()
            with Load(manager.target(), MODES) as load:
                time.sleep(1)  # the first requests find cold workers
                steady_from = time.monotonic()
                time.sleep(STEADY_SECONDS)
                windows = [_reload(manager, app, str(n)) for n in range(2, RELOADS + 2)]
                result = load.stop()
            ours.send("enough")
            samples: list[Sample] = ours.recv()
            watching.join()
            return _attribute(result, samples, manager.pid, steady_from, windows)


def _reload(manager: Manager, app: App, version: str) -> tuple[float, float]:
    app.deploy(version)
    asked_at = time.monotonic()
    done = manager.reload()
    assert done.code == 0, done.stderr
    ended_at = time.monotonic()
    time.sleep(REST_SECONDS)
    return asked_at, ended_at + 0.5


def _attribute(
    result: Result,
    samples: Sequence[Sample],
    manager: int,
    steady_from: float,
    windows: Sequence[tuple[float, float]],
) -> tuple[Counter[str], int, float]:
    calm = result.select(modes=QUICK, since=steady_from, until=windows[0][0])
    limit = percentile((row.latency for row in calm), 0.99)
    during = [
        row
        for since, until in windows
        for row in result.select(modes=QUICK, since=since, until=until)
        if row.outcome is Outcome.OK
    ]
    lives = _lives(result)
    instants = [sample.at for sample in samples]
    causes: Counter[str] = Counter()
    for row in during:
        if row.latency > limit:
            low = max(0, bisect.bisect_right(instants, row.scheduled) - 1)
            high = bisect.bisect_left(instants, row.ended)
            causes[cause(row, samples[low : high + 1], lives, manager)] += 1
    return causes, len(during), limit


def _lives(result: Result) -> dict[int, Life]:
    starts: dict[int, list[float]] = defaultdict(list)
    last: dict[int, float] = defaultdict(float)
    for row in result.rows:
        if row.pid:
            starts[row.pid].append(row.began)
            last[row.pid] = max(last[row.pid], row.ended)
    return {
        pid: Life(first=min(began), last=last[pid], starts=sorted(began))
        for pid, began in starts.items()
    }


def cause(row: Row, samples: Sequence[Sample], lives: Mapping[int, Life], manager: int) -> str:
    """Return what a slow request is put down to, a key of CAUSES."""
    if (life := lives.get(row.pid)) and row.began in life.starts[:COLD] and life.first > 0:
        return "cold"
    ran: Counter[str] = Counter()
    for before, after in itertools.pairwise(samples):
        for pid, total in after.ran.items():
            more = total - before.ran.get(pid, 0.0 if pid not in lives else total)
            ran[_kind(pid, after.at, lives, manager)] += max(0.0, more)  # type: ignore[assignment]
    del ran["serves"]
    kind, most = ran.most_common(1)[0] if ran else ("other", 0.0)
    return kind if most >= FELT * row.latency else "other"


def _kind(pid: int, at: float, lives: Mapping[int, Life], manager: int) -> str:
    if pid == manager:
        return "manager"
    life = lives.get(pid)
    if life is None:
        return "command"
    return "boot" if at < life.first else "exit" if at > life.last else "serves"


def section() -> Section:
    """Measure, and return the part of the document on it."""
    narrate("what slows requests in a reload …")
    causes, requests, limit = measure()
    slow = causes.total()
    rows = [
        (CAUSES[key], str(causes[key]), number(causes[key] / slow if slow else math.nan))
        for key in CAUSES
    ]
    about = (
        f"{WORKERS} uvicorn workers that take 0.5 s to import, load "
        + ", ".join(f"`{mode}`" for mode in MODES)
        + f", {RELOADS} reloads. {slow} of {requests} requests took longer than "
        f"{number(limit * 1000)} ms, the 99th percentile before the reloads. What each is put "
        f"down to: one of the first {COLD} that a worker answered, or else the kind of process "
        "that ran most between the instant the request was due and its answer, and for at least "
        f"{FELT:.0%} of that time (by /proc/PID/schedstat, every {LOOK_SECONDS * 1000:g} ms)."
    )
    return Section(
        title="What slows requests in a reload",
        text=f"{about}\n\n{table(('cause', 'requests', 'share'), rows)}",
    )
