"""Short requests beside slow ones, where a worker answers one at a time: who waits for whom."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sockmgr.torture.load.result import percentile
from tests.bench.contender import WORKERS
from tests.bench.costs import directory
from tests.bench.models import config
from tests.bench.report import narrate, number, table
from tests.bench.sharing import figures
from tests.e2e.apps import App
from tests.e2e.harness import Manager
from tests.e2e.servers import SERVERS, Server
from tests.helpers.load import Load, Target

# Two slow requests at any time. Not of one length: in step with the short ones, they would meet
# always or never.
MIXED = ("short:rate=190", "slow:conns=1,s=0.03", "slow:conns=1,s=0.08")
ROUNDS = 3
SECONDS = 2.0
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

SYNC = replace(SERVERS["gunicorn sync"], workers=WORKERS)
# The same application; its event loop accepts, and one thread answers.
RUNTIME = Server(example="wsgi", command=(), workers=WORKERS)
ONE_THREAD = "http = { threads = 1, access_log = false }\n"
_LIGHT, _DARK = "#8fb8de", "#1f4e79"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One server that shares its listener in one way, and how it is drawn."""

    name: str
    server: Server
    model: str
    more: str = ""
    colour: str
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How long each short request took, in milliseconds."""

    way: Way
    times: Sequence[float]


WAYS = (
    Way(name="Gunicorn sync, shared", server=SYNC, model="shared", colour=_DARK, style="-"),
    Way(name="Gunicorn sync, per-worker", server=SYNC, model="per-worker",
        colour=_LIGHT, style="-"),
    Way(name="runtime, shared", server=RUNTIME, model="shared", more=ONE_THREAD,
        colour="#b58900", style=":"),
    Way(name="runtime, per-worker", server=RUNTIME, model="per-worker", more=ONE_THREAD,
        colour=_LIGHT, style="--"),
    Way(name="runtime, dispatch, round-robin", server=RUNTIME, model="dispatch", more=ONE_THREAD,
        colour="#c0504d", style="--"),
    Way(name="runtime, dispatch, least-connections", server=RUNTIME, model="dispatch",
        more=f'policy = "least-connections"\n{ONE_THREAD}', colour="#c0504d", style="-"),
    Way(name="the same, max_connections = 1", server=RUNTIME, model="dispatch",
        more=f'policy = "least-connections"\nmax_connections = 1\n{ONE_THREAD}',
        colour="#5c1512", style="-."),
)  # fmt: skip


def measure() -> Sequence[Waiting]:
    """Load them in ROUNDS, in turn, so that all meet the same weather."""
    narrate("short requests beside slow ones …")
    times: dict[str, list[float]] = {way.name: [] for way in WAYS}
    with ExitStack() as stack:
        targets = {way.name: stack.enter_context(_serving(way)) for way in WAYS}
        for _ in range(ROUNDS):
            for name, target in targets.items():
                times[name] += _load(target)
    return [Waiting(way=way, times=times[way.name]) for way in WAYS]


@contextmanager
def _serving(way: Way) -> Iterator[Target]:
    with directory() as path:
        cwd = App(way.server.example, path).directory
        with Manager(path, config(way.server, way.model, cwd, more=way.more)) as manager:
            yield manager.target()


def _load(target: Target) -> Sequence[float]:
    with Load(target, MIXED) as load:
        time.sleep(SECONDS)
        result = load.stop()
    assert not result.lost, result.failures()
    return [row.latency * 1000 for row in result.select(modes=["short"])]


def described(found: Sequence[Waiting]) -> str:
    """Return what was measured, as Markdown."""
    modes = ", ".join(f"`{mode}`" for mode in MIXED)
    about = (
        f"{WORKERS} workers that answer one request at a time, load {modes}: two of them are at "
        "work on a slow request at any time, and a short one that comes to such a worker waits for "
        "it. How long the short ones took. The runtime serves the same WSGI application as "
        "Gunicorn, with `threads = 1`; its event loop accepts also while that thread is busy, a "
        "sync worker of Gunicorn does not."
    )
    rows = [(one.way.name, str(len(one.times)), *map(number, _shown(one.times))) for one in found]
    head = ("server and model", "requests", *(f"{name} (ms)" for name in SHARES), "max (ms)")
    return f"{about}\n\n{table(head, rows)}"


def _shown(times: Sequence[float]) -> Sequence[float]:
    return [*(percentile(times, share) for share in SHARES.values()), max(times)]


def draw(found: Sequence[Waiting], path: Path) -> None:
    """Draw the tail of each."""
    lines = [(one.way.name, one.times, one.way.colour, one.way.style) for one in found]
    figures.tails(path, lines, across="milliseconds to the answer of a short request")
