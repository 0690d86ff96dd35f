"""Who is on the path of a request: what clients feel of a reload and of managers that die."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sockmgr.torture.load.result import Outcome, percentile
from tests.bench.contender import WORKERS, environment
from tests.bench.report import Goal, Section, narrate, number, table
from tests.e2e.apps import App
from tests.e2e.harness import Manager
from tests.helpers.load import Load, Result

MODELS = ("shared", "per-worker", "dispatch")
MODES = ("short:rate=100", "ka:conns=16,rate=100")
ROUNDS = 3
STEADY_SECONDS = 5.0
AFTERMATH_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Felt:
    """Latencies in one stretch of a round, in seconds."""

    p99: float
    longest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One manager's life: what was felt in quiet, in a reload, and at each death; what failed."""

    requests: int
    steady: Felt
    reload: Felt
    killed: Felt
    both_killed: Felt
    failed: Counter[str]


def measure(model: str) -> Round:
    """Start, reload, kill the manager, start the next, kill it and its keeper, start another."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as name:
        directory = Path(name)
        app = App("asgi", directory)
        config = (
            f'[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\napp = "app:app"\n'
            f'accept = "{model}"\nworkers = {WORKERS}\ncwd = "{app.directory}"\n'
            "http = { access_log = false }\n"
        )
        with (
            Manager(directory, config, env=environment()) as manager,
            Load(manager.target(), MODES) as load,
        ):
            time.sleep(1)  # the first requests find cold workers
            stretches = [_stretch(lambda: time.sleep(STEADY_SECONDS))]
            app.deploy("2")
            stretches.append(_stretch(lambda: _reload(manager)))
            stretches.append(_stretch(lambda: _succeed(manager)))
            stretches.append(_stretch(lambda: _succeed(manager, keeper=True)))
            result = load.stop()
    steady, reload, killed, both = (_felt(result, *stretch) for stretch in stretches)
    return Round(
        requests=len(result.rows), steady=steady, reload=reload, killed=killed, both_killed=both,
        failed=Counter(f"{row.mode} {row.outcome}" for row in result.failed),
    )  # fmt: skip


def _stretch(act: Callable[[], object]) -> tuple[float, float]:
    """Return from when to when `act` and what comes right after it went on."""
    since = time.monotonic()
    act()
    time.sleep(AFTERMATH_SECONDS)
    return since, time.monotonic()


def _reload(manager: Manager) -> None:
    done = manager.reload()
    assert done.code == 0, done.stderr


def _succeed(manager: Manager, *, keeper: bool = False) -> None:
    """Kill the manager, and its keeper if asked to; let the next one take over after a while."""
    manager.kill9(keeper=keeper)
    time.sleep(1)  # with no manager at all
    manager.start()
    manager.wait_serving()


def _felt(result: Result, since: float, until: float) -> Felt:
    rows = result.select(since=since, until=until)
    times = [row.latency for row in rows if row.outcome is Outcome.OK]
    return Felt(p99=percentile(times, 0.99), longest=max(times))


def section() -> Section:
    """Measure in turn, and return the part of the document on it."""
    rounds: dict[str, list[Round]] = {model: [] for model in MODELS}
    for n in range(ROUNDS):
        for model, found in rounds.items():
            narrate(f"who is on the path, round {n + 1}: {model} …")
            found.append(measure(model))
    about = (
        f"{WORKERS} workers of `app =` that take 0.5 s to import, load "
        + ", ".join(f"`{mode}`" for mode in MODES)
        + f"; medians of {ROUNDS} rounds in turn. In each, a reload; then the manager is killed "
        "with -9, and another one starts a second later; then the manager and its keeper are "
        "killed together."
    )
    head = ("accept", "requests", "failed", "p99 in quiet (ms)", "p99 in a reload", "ratio",
            "longest in a reload", "longest, manager killed", "longest, both killed")  # fmt: skip
    rows = [_row(model, found) for model, found in rounds.items()]
    return Section(
        title="Who is on the path of a request",
        text=f"{about}\n\n{table(head, rows)}",
        goals=[goal for model, found in rounds.items() for goal in _goals(model, found)],
    )


def _ratio(rounds: Sequence[Round]) -> float:
    return median(one.reload.p99 / one.steady.p99 for one in rounds)


def _row(model: str, rounds: Sequence[Round]) -> Sequence[str]:
    failed = sum((one.failed for one in rounds), Counter[str]())
    named = ", ".join(f"{count} {outcome}" for outcome, count in failed.most_common())
    times = (
        median(one.steady.p99 for one in rounds),
        median(one.reload.p99 for one in rounds),
    )
    longest = (
        median(one.reload.longest for one in rounds),
        median(one.killed.longest for one in rounds),
        median(one.both_killed.longest for one in rounds),
    )
    return (
        model,
        str(sum(one.requests for one in rounds)),
        f"{failed.total()}: {named}" if failed else "0",
        *(number(each * 1000) for each in times),
        number(_ratio(rounds)),
        *(number(each * 1000) for each in longest),
    )


def _goals(model: str, rounds: Sequence[Round]) -> Iterator[Goal]:
    failed = sum(one.failed.total() for one in rounds)
    yield Goal(what=f"failed, reload and deaths of managers, {model}", value=failed, limit=0)
    killed = median(one.killed.longest for one in rounds) * 1000
    yield Goal(what=f"longest wait, manager killed, {model}", value=killed, limit=15, unit="ms")
    if model == "dispatch":
        yield Goal(what="dispatch: p99 in a reload / in quiet", value=_ratio(rounds), limit=1.5,
                   tried="the dispatcher is a process of its own, above the boots in priority; "
                   "what is left are the processors that the boots have")  # fmt: skip
        longest = median(one.reload.longest for one in rounds) * 1000
        yield Goal(what="dispatch: longest in a reload", value=longest, limit=20, unit="ms")
