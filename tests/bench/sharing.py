"""How evenly several processes share a listener, and what that does to those who wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.contender import WORKERS, environment, free_port, started
from tests.bench.costs import directory
from tests.bench.models import RUNTIME, config
from tests.bench.report import Goal, Section, narrate, number, table
from tests.e2e.apps import App
from tests.e2e.harness import BIN, Manager, wait_for
from tests.e2e.test_reload_servers import GTHREAD, SERVERS, UVICORN, Server
from tests.load.judge import Load
from tests.load.mode import Target

HELD = 64
SHORT, CLIENTS = 600, 8
EXACT = ("uvicorn, per-worker", "runtime, dispatch")
# Each slow request takes a worker that answers one at a time for itself.
MIXED = ("short:rate=60", "slow:conns=2,s=0.05")
MIXED_SECONDS = 10.0
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

Start = Callable[[Path], AbstractContextManager[Target]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How many connections each worker got, the most first."""

    name: str
    held: tuple[int, ...]
    short: tuple[int, ...]


def section() -> Section:
    """Measure all of them."""
    found = [_measure(name, start) for name, start in _contenders()]
    about = (
        f"{WORKERS} workers. *Held*: {HELD} connections are opened at once, each sends a request "
        f"and stays open. *Short*: {SHORT} requests, a new connection each, by {CLIENTS} clients. "
        "The connections of each worker, and their coefficient of variation: 0 if all have the "
        f"same, {number(_binomial(HELD))} and {number(_binomial(SHORT))} on average if each is "
        "chosen at random."
    )
    mixed = (
        "And those who wait, where a worker answers one request at a time (Gunicorn sync, "
        f"{WORKERS} workers, load {', '.join(f'`{mode}`' for mode in MIXED)}): a slow request "
        "blocks its worker for 50 ms, and a short one in the queue of that worker waits for it."
    )
    head = ("servers", "held", "CV", "short", "CV")
    waits = [_mixed(model) for model in ("shared", "per-worker")]
    return Section(
        title="Who gets the connections",
        text="\n\n".join([
            about,
            table(head, [_row(one) for one in found]),
            mixed,
            table(("queue", "requests", "p50 (ms)", "p90 (ms)", "p99 (ms)", "max (ms)"), waits),
        ]),
        goals=[
            Goal(what=f"CV of {HELD} held connections, {one.name}", value=_variation(one.held),
                 limit=0)
            for one in found if one.name in EXACT
        ],
        draw=lambda directory: _draw(found, directory / "who-gets-the-connections.svg"),
    )  # fmt: skip


def _row(one: Sharing) -> tuple[str, ...]:
    return (
        one.name,
        "/".join(map(str, one.held)), number(_variation(one.held)),
        "/".join(map(str, one.short)), number(_variation(one.short)),
    )  # fmt: skip


def _variation(counts: Sequence[int]) -> float:
    return statistics.pstdev(counts) / statistics.mean(counts)


def _binomial(connections: int) -> float:
    """The coefficient of variation that a random choice among WORKERS has on average."""
    return math.sqrt((WORKERS - 1) / connections)


# --- Who is compared ------------------------------------------------------------------------------


def _contenders() -> Iterator[tuple[str, Start]]:
    """Servers as they come, and the same behind a manager."""
    for name, example, command in (
        ("uvicorn --workers 4", "asgi",
         "uvicorn --no-access-log --log-level warning --workers 4 --port PORT app:app"),
        ("Gunicorn gthread -w 4", "wsgi",
         "gunicorn -k gthread --threads 8 -w 4 --no-control-socket -b 127.0.0.1:PORT app:app"),
        ("hypercorn -w 4", "asgi", "hypercorn -w 4 --bind 127.0.0.1:PORT app:app"),
        ("granian --workers 4", "asgi",
         "granian --interface asgi --workers 4 --port PORT app:app"),
        ("uWSGI -p 4", "wsgi",
         "uwsgi --master --http-socket 127.0.0.1:PORT --http-keepalive -p 4 --threads 32 "
         "-w app:app --disable-logging --die-on-term"),
    ):  # fmt: skip
        yield name, _as_it_comes(example, command)
    for name, server, models in (
        ("uvicorn", UVICORN, ("shared", "per-worker")),
        ("Gunicorn gthread", GTHREAD, ("shared", "per-worker")),
        ("hypercorn", SERVERS["hypercorn"], ("shared", "per-worker")),
        ("runtime", RUNTIME, ("shared", "per-worker", "dispatch")),
    ):
        for model in models:
            yield f"{name}, {model}", _managed(server, model)


def _as_it_comes(example: str, command: str) -> Start:
    @contextmanager
    def start(path: Path) -> Iterator[Target]:
        app, port = App(example, path), free_port()
        program, *arguments = command.replace("PORT", str(port)).split()
        with started([str(BIN / program), *arguments], app.directory):
            yield Target.at_url(f"http://127.0.0.1:{port}")

    return start


def _managed(server: Server, model: str) -> Start:
    @contextmanager
    def start(path: Path) -> Iterator[Target]:
        app = App(server.example, path)
        text = config(server, model, app.directory, workers=WORKERS)
        with Manager(path, text, env=environment()) as manager:
            yield manager.target()

    return start


# --- Counting ------------------------------------------------------------------------------------


def _measure(name: str, start: Start) -> Sharing:
    narrate(f"{name} …")
    with directory() as path, start(path) as target:
        _await_all(target)
        held, short = asyncio.run(_hold(target)), asyncio.run(_ask_often(target))
    return Sharing(name=name, held=_counts(held), short=_counts(short))


def _counts(pids: Sequence[int]) -> tuple[int, ...]:
    counts = sorted(Counter(pids).values(), reverse=True)
    return (*counts, *[0] * (WORKERS - len(counts)))


def _await_all(target: Target) -> None:
    """Return when every worker has answered: not all servers tell when theirs are up."""
    seen: set[int] = set()

    def all_seen() -> bool:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            seen.update(asyncio.run(_hold(target)))
        return len(seen) == WORKERS

    # hypercorn gives a burst to one worker, and others now and then.
    with contextlib.suppress(TimeoutError):
        wait_for(all_seen, "all workers", timeout=15)


async def _hold(target: Target) -> list[int]:
    """Open HELD connections at once; return who answers each of them, while all are open."""
    opened = await asyncio.gather(*[_connect(target) for _ in range(HELD)])
    try:
        return await asyncio.gather(*[_ask(*streams) for streams in opened])
    finally:
        for _, writer in opened:
            writer.close()


async def _ask_often(target: Target) -> list[int]:
    found: list[int] = []

    async def client() -> None:
        for _ in range(SHORT // CLIENTS):
            reader, writer = await _connect(target)
            found.append(await _ask(reader, writer))
            writer.close()

    await asyncio.gather(*[client() for _ in range(CLIENTS)])
    return found


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert not isinstance(target.address, str)  # the path of a unix socket
    return await asyncio.open_connection(*target.address)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Return the pid of who answers."""
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    return int(json.loads(await reader.readexactly(length))["pid"])


def _draw(found: Sequence[Sharing], path: Path) -> None:
    """Draw a bar for each contender, a piece of it for each worker."""
    import matplotlib  # noqa: PLC0415 - only where something is drawn

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": path.name, "font.size": 9}
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(7.5, 0.32 * len(found) + 0.9), layout="constrained")
    names = [one.name for one in found]
    left = [0] * len(found)
    for worker, colour in enumerate(("#1f4e79", "#3f7fb5", "#8fb8de", "#d0e2f2")):
        held = [one.held[worker] for one in found]
        bars = axes.barh(names, held, left=left, color=colour, edgecolor="white")
        axes.bar_label(bars, [str(n) if n > 1 else "" for n in held], label_type="center",
                       color="white" if worker < 2 else "black", fontsize=8)  # fmt: skip
        left = [sum(pair) for pair in zip(left, held, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(f"{HELD} connections, held open: how many each of {WORKERS} workers has")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


# --- Waiting -------------------------------------------------------------------------------------


def _mixed(model: str) -> tuple[str, ...]:
    narrate(f"a mixed load, {model} …")
    server = replace(SERVERS["gunicorn sync"], workers=WORKERS)
    with directory() as path:
        text = config(server, model, App(server.example, path).directory)
        with Manager(path, text) as manager, Load(manager.target(), MIXED) as load:
            time.sleep(MIXED_SECONDS)
            result = load.stop()
    assert not result.lost, result.failures()
    rows = result.select(modes=["short"])
    times = result.latencies(rows)
    figures = (number(times[name] * 1000) for name in ("p50", "p90", "p99", "max"))
    return model, str(len(rows)), *figures
