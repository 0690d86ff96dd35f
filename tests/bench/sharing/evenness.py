"""How evenly several processes share a listener: who gets 64 connections, and who 600."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sockmgr.kernel.steering import round_robin
from sockmgr.kernel.steering.pool import Choice
from tests.bench.contender import WORKERS, environment, free_port, started
from tests.bench.costs import directory
from tests.bench.models import RUNTIME, config
from tests.bench.report import Goal, narrate, number, table
from tests.bench.sharing import figures
from tests.bench.sharing.chance import Chance
from tests.e2e.apps import App
from tests.e2e.harness import BIN, Manager, wait_for
from tests.e2e.servers import GTHREAD, SERVERS, UVICORN, Server
from tests.helpers.load import Target

HELD = 64
SHORT, CLIENTS = 600, 8
BURSTS, RUNS = 100, 20
ERRORS = 3  # standard errors that chance is given: it then misses the goal once in a thousand runs
EXACT = ("uvicorn, per-worker", "runtime, dispatch")
CHANCE = "uvicorn, per-worker, random"
# eBPF is for CAP_BPF or CAP_SYS_ADMIN (capabilities(7)); who is not root has neither as a rule.
WITHOUT_BPF = (
    ("setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin")
    if os.geteuid() == 0 else ()
)  # fmt: skip
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

Start = Callable[[Path], AbstractContextManager[Target]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How many connections each worker got, the most first."""

    name: str
    held: tuple[int, ...]
    short: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evenness:
    """All contenders, and how the random choice did when it was asked again and again."""

    contenders: Sequence[Sharing]
    chances: Sequence[Chance]


def measure() -> Evenness:
    """Measure all of them."""
    found = [_measure(name, start) for name, start in _contenders()]
    return Evenness(contenders=found, chances=_repeat())


def described(found: Evenness) -> str:
    """Return what was measured, as Markdown."""
    about = (
        f"{WORKERS} workers. *Held*: {HELD} connections are opened at once, each sends a request "
        f"and stays open. *Short*: {SHORT} requests, a new connection each, by {CLIENTS} clients. "
        "The connections of each worker, and their coefficient of variation: 0 if all have the "
        "same. By the log of the managers, the queues of `per-worker` are chosen by "
        f"{_permitted()}, and by {Choice.RANDOM} in the line *random*, where the manager was "
        "started without `CAP_BPF`."
    )
    rows = [
        (one.name, "/".join(map(str, one.held)), number(_variation(one.held)),
         "/".join(map(str, one.short)), number(_variation(one.short)))
        for one in found.contenders
    ]  # fmt: skip
    head = ("servers", "held", "CV", "short", "CV")
    return f"{about}\n\n{table(head, rows)}\n\n{_chances(found.chances)}"


def _chances(found: Sequence[Chance]) -> str:
    about = (
        "One sample of what is random says little. Such a manager without `CAP_BPF` again, "
        f"{BURSTS} bursts of {HELD} and {RUNS} runs of {SHORT}: the root mean square of the "
        "coefficients of variation, and what it is for a binomial choice."
    )
    rows = [
        (f"{len(one.variations)} times {one.connections}",
         f"{number(one.usual)} ± {number(one.error)}", number(one.expected),
         f"{number(min(one.variations))} to {number(max(one.variations))}")
        for one in found
    ]  # fmt: skip
    head = ("connections", "CV ± standard error", "binomial", "least and most")
    return f"{about}\n\n{table(head, rows)}"


def goals(found: Evenness) -> Sequence[Goal]:
    """Exact where it can be; else no worse than chance, but for what so few samples cannot tell."""
    return [
        *(Goal(what=f"CV of {HELD} held connections, {one.name}", value=_variation(one.held),
               limit=0)
          for one in found.contenders if one.name in EXACT),
        *(Goal(what=f"CV of {one.connections} connections, {CHANCE}", value=one.usual,
               limit=one.expected + ERRORS * one.error,
               compared=f"binomial {number(one.expected)}, standard error {number(one.error)}")
          for one in found.chances),
    ]  # fmt: skip


def draw(found: Evenness, path: Path) -> None:
    """Draw a bar for each contender, a piece of it for each worker."""
    figures.bars(
        path, [one.name for one in found.contenders], [one.held for one in found.contenders],
        across=f"{HELD} connections, held open: how many each of {WORKERS} workers has",
    )  # fmt: skip


def _variation(counts: Sequence[int]) -> float:
    return statistics.pstdev(counts) / statistics.mean(counts)


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
            if server is UVICORN and model == "per-worker":
                yield CHANCE, _by_chance


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
            assert model != "per-worker" or _choice(manager) == _permitted(), manager.log
            yield manager.target()

    return start


@contextmanager
def _by_chance(path: Path) -> Iterator[Target]:
    """Start one with a queue for each worker that cannot load eBPF, by what it says itself."""
    app = App(UVICORN.example, path)
    text = config(UVICORN, "per-worker", app.directory, workers=WORKERS)
    with Manager(path, text, env=environment(), under=WITHOUT_BPF) as manager:
        assert _choice(manager) == Choice.RANDOM, manager.log
        yield manager.target()


def _permitted() -> Choice:
    """Return what a manager is permitted that we start as we are."""
    return Choice.RANDOM if round_robin.refusal() else Choice.ROUND_ROBIN


def _choice(manager: Manager) -> str:
    """Return how a queue is chosen, as the log tells it."""
    told = re.search(r"queues (?:take turns|chosen at random) .*?choice='([^']*)'", manager.log)
    return told[1] if told else ""


# --- Counting ------------------------------------------------------------------------------------


def _measure(name: str, start: Start) -> Sharing:
    narrate(f"{name} …")
    with directory() as path, start(path) as target:
        _await_all(target)
        held, short = asyncio.run(_hold(target)), asyncio.run(_ask_often(target))
    return Sharing(name=name, held=_counts(held), short=_counts(short))


def _repeat() -> Sequence[Chance]:
    """Ask the random choice again and again: one sample of it proves nothing."""
    narrate(f"{CHANCE}, {BURSTS} bursts and {RUNS} runs …")
    with directory() as path, _by_chance(path) as target:
        _await_all(target)
        held = [_variation(_counts(asyncio.run(_hold(target)))) for _ in range(BURSTS)]
        short = [_variation(_counts(asyncio.run(_ask_often(target)))) for _ in range(RUNS)]
    return [
        Chance(connections=connections, choices=WORKERS, variations=variations)
        for connections, variations in ((HELD, held), (SHORT, short))
    ]


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
