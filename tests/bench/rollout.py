"""Two reloads of one contender under mixed load: what failed, what slowed, how long it took."""

from __future__ import annotations

import math
import socket
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contender import UVICORN, WORKERS, Contender, environment
from tests.e2e.apps import App
from tests.e2e.harness import end_marked, marked_environment, wait_for
from tests.load.judge import Load
from tests.load.result import Result

MODES = ("short:rate=100", "ka:conns=16,rate=100", "slow:conns=2", "stream:conns=2,s=4")
QUICK = ("short", "ka")
STEADY_SECONDS = 5.0
NEW_VERSION_TIMEOUT = 20.0
AFTERMATH_SECONDS = 8.0  # for the slow answers, the streams and what comes after them


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One reload: when it was asked for, when the tool said that it was done."""

    version: str
    asked_at: float
    told_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one contender did in its reloads. Seconds; the worst of the reloads."""

    name: str
    requests: int
    failed: Counter[str]
    steady: dict[str, float]
    reloading: dict[str, float]
    ratio: float
    first_new: float
    last_old: float
    mixed: float
    told: float
    lag: float


def measure(contender: Contender) -> Figures:
    """Start the contender, load it, reload it twice, stop it."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as name:
        directory = Path(name)
        app = App(contender.example, directory)
        with contender.start(app, directory) as running, Load(running.target, MODES) as load:
            time.sleep(1)  # the first requests find cold workers
            steady_from = time.monotonic()
            time.sleep(STEADY_SECONDS)
            windows = []
            for version in ("2", "3"):
                app.deploy(version)
                asked_at = time.monotonic()
                running.reload()
                windows.append(Window(version=version, asked_at=asked_at, told_at=time.monotonic()))
                _wait_for_version(load, version)
                time.sleep(AFTERMATH_SECONDS)
            return _figures(contender.described, load.stop(), steady_from, windows)


def _wait_for_version(load: Load, version: str) -> None:
    def answered() -> bool:
        return any(row.version == version for row in load.result.rows[-500:])

    try:
        wait_for(answered, "the new version", timeout=NEW_VERSION_TIMEOUT)
    except TimeoutError:
        return  # "never" is a figure, too


def _figures(name: str, result: Result, steady_from: float, windows: list[Window]) -> Figures:
    calm = result.select(modes=QUICK, since=steady_from, until=windows[0].asked_at)
    first_new = [result.first_new(w.version, w.asked_at) for w in windows]
    last_old = [_last_old(result, window) for window in windows]
    ends = [
        window.asked_at + max(_or_zero(first), _or_zero(last)) + 0.5
        for window, first, last in zip(windows, first_new, last_old, strict=True)
    ]
    during = [
        row
        for window, end in zip(windows, ends, strict=True)
        for row in result.select(modes=QUICK, since=window.asked_at, until=end)
    ]
    steady, reloading = result.latencies(calm), result.latencies(during)
    return Figures(
        name=name,
        requests=len(result.rows),
        failed=Counter(f"{row.mode} {row.outcome}" for row in result.failed),
        steady=steady,
        reloading=reloading,
        ratio=reloading["p99"] / steady["p99"],
        first_new=_worst(first_new),
        last_old=_worst(last_old),
        mixed=result.mixed(),
        told=_worst([window.told_at - window.asked_at for window in windows]),
        lag=result.lag,
    )


def _last_old(result: Result, window: Window) -> float:
    """Seconds to the last new connection that an older version than this one answered."""
    begins = (
        row.began
        for row in result.rows
        if row.fresh
        and row.began > window.asked_at
        and row.version
        and row.version < window.version
    )
    return max(begins, default=math.nan) - window.asked_at


def _worst(values: list[float]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def boot_seconds() -> float:
    """Seconds that four uvicorn workers, started together by hand, need until all of them serve."""
    with (
        tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as name,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        app = App("asgi", Path(name))
        env = marked_environment(environment())
        began_at = time.monotonic()
        workers = [
            subprocess.Popen(
                [UVICORN[0], "--fd", str(listener.fileno()), "app:app"], cwd=app.directory, env=env,
                pass_fds=[listener.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
            for _ in range(WORKERS)
        ]  # fmt: skip
        try:
            for worker in workers:  # each says so; they are up when the last has said it
                assert worker.stderr is not None
                while b"Uvicorn running" not in worker.stderr.readline():
                    pass
            return time.monotonic() - began_at
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
            end_marked(env)
