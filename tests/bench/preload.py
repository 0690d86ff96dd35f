"""What preloading saves: the memory of four workers, and the time until sixteen are ready."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sockmgr.torture.load.result import Outcome, percentile
from tests.bench.contender import environment
from tests.bench.costs import pss
from tests.bench.report import Goal, Section, narrate, number, table
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.helpers.load import Load

WORKERS = 4
MANY = 16
ROUNDS = 3
REQUESTS = 1000  # to each worker
MEGABYTES = 50
LARGE = f"""
import gc
from app import app as small
held = [[str(number)] for number in range({MEGABYTES * 7000})]
async def app(scope, receive, send):
    if scope.get("path") == "/collect":
        gc.collect()
    await small(scope, receive, send)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The PSS, in bytes, of all workers and the template: at first, after requests, after gc."""

    first: int
    worked: int
    collected: int

    def shares(self, other: Memory) -> Sequence[float]:
        """Return each as a part of the other's."""
        return (
            self.first / other.first,
            self.worked / other.worked,
            self.collected / other.collected,
        )


def section() -> Section:
    """Measure, and return the part of the document on it."""
    narrate("memory of preloaded workers …")
    shared, apart = _memory(preload=True), _memory(preload=False)
    narrate(f"{MANY} preloaded workers …")
    one, many, many_apart = [], [], []
    for _ in range(ROUNDS):  # in turn, so that all meet the same weather
        one.append(_ready(1, preload=False))
        many.append(_ready(MANY, preload=True))
        many_apart.append(_ready(MANY, preload=False))
    times = [percentile(found, 0.5) for found in (one, many, many_apart)]
    return Section(
        title="Preloading",
        text=f"{_about()}\n\n{_memories(shared, apart)}\n\n{_times(*times)}",
        goals=_goals(shared.shares(apart), *times[:2]),
    )


def _about() -> str:
    return (
        f"An application whose import makes some {MEGABYTES} MB of small objects; for the times it "
        "also sleeps 0.25 s and computes 0.25 s. Memory is the PSS of all workers, and the "
        f"template's: when they are ready, after {REQUESTS} requests to each and more, and after a "
        "full `gc.collect()` in each. Times are from the request to reload to the last worker that "
        f"is ready, the median of {ROUNDS} in turn."
    )


def _memories(shared: Memory, apart: Memory) -> str:
    def row(name: str, found: Memory) -> Sequence[str]:
        sizes = (found.first, found.worked, found.collected)
        return (name, *(number(size / 2**20) for size in sizes))

    shares = ("share", *(f"{share:.3f}" for share in shared.shares(apart)))
    head = (f"{WORKERS} workers", "ready (MB)", "after requests (MB)", "after gc (MB)")
    return table(head, [row("preload = true", shared), row("preload = false", apart), shares])


def _times(one: float, many: float, many_apart: float) -> str:
    rows = [
        ("one worker, preload = false", number(one), "1"),
        (f"{MANY} workers, preload = true", number(many), number(many / one)),
        (f"{MANY} workers, preload = false", number(many_apart), number(many_apart / one)),
    ]
    return table(("generation", "ready after (s)", "times one"), rows)


def _goals(shares: Sequence[float], one: float, many: float) -> Sequence[Goal]:
    first, *later = shares
    return [
        Goal(what="memory of preloaded workers / of others", value=first, limit=0.34),
        Goal(what="the same after requests and gc, more by", value=max(later) - first, limit=0.02),
        Goal(
            what=f"{MANY} preloaded workers ready / one that imports",
            value=many / one,
            limit=1.1,
            compared=f"{number(many, 's')} and {number(one, 's')}",
        ),
    ]


@contextmanager
def _serving(workers: int, *, preload: bool, seconds: str) -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as path:
        app = App("asgi", Path(path))
        (app.directory / "large.py").write_text(LARGE)
        config = (
            f'[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\napp = "large:app"\n'
            f'preload = {str(preload).lower()}\nworkers = {workers}\ncwd = "{app.directory}"\n'
            "http = { access_log = false }\n"
        )
        env = dict(environment(IMPORT_SECONDS=seconds))
        with Manager(Path(path), config, env=env, serving_timeout=120) as manager:
            yield manager


# --- Memory --------------------------------------------------------------------------------------


def _memory(*, preload: bool) -> Memory:
    with _serving(WORKERS, preload=preload, seconds="0") as manager:
        workers = {worker["pid"] for worker in manager.workers()}
        everybody = workers | set(
            map(int, re.findall(r"template started .*pid=(\d+)", manager.log))
        )
        first = sum(map(pss, everybody))
        _work(manager, workers)
        worked = sum(map(pss, everybody))
        _collect(manager, workers)
        collected = sum(map(pss, everybody))
    return Memory(first=first, worked=worked, collected=collected)


def _work(manager: Manager, workers: set[int]) -> None:
    """Have each worker answer REQUESTS requests."""
    with Load(manager.target(), ["slow:path=/,conns=16"]) as load:

        def done() -> bool:
            rows = list(load.result.rows)
            count = Counter(row.pid for row in rows if row.outcome is Outcome.OK)
            return all(count[pid] >= REQUESTS for pid in workers)

        wait_for(done, f"{REQUESTS} answers of each worker", timeout=120)


def _collect(manager: Manager, workers: set[int]) -> None:
    """Have each worker collect its garbage in full."""
    collected: set[int] = set()
    host, port = manager.target().address[:2]
    while collected < workers:
        connection = http.client.HTTPConnection(host, port)
        connection.request("GET", "/collect")
        collected.add(json.loads(connection.getresponse().read())["pid"])
        connection.close()


# --- Time ----------------------------------------------------------------------------------------


def _ready(workers: int, *, preload: bool) -> float:
    """Return the seconds from the request to reload to the last worker that is ready."""
    ready = re.compile(r"worker ready worker=web@2\.")
    with _serving(workers, preload=preload, seconds="0.5") as manager:
        began_at = time.monotonic()
        os.kill(manager.pid, signal.SIGHUP)
        wait_for(lambda: len(ready.findall(manager.log)) == workers, "the workers", timeout=120)
        return time.monotonic() - began_at
