"""Many reloads under clients that never leave their connections alone: what each server loses."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.bench.contender import UVICORN, environment
from tests.bench.report import Goal, Section, narrate, table
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.helpers.load import Load

RELOADS = 20
CLIENTS = 16
THINK = 0.01
MODES = (f"kat:conns={CLIENTS},think={THINK}", "short:rate=100")
WORKERS = 2
COMMAND = ", ".join(f'"{word}"' for word in (*UVICORN, "--fd", "{http}", "app:app"))
SERVED_BY = {
    "sockmgr, app = (uvicorn {})": 'app = "app:app"\nhttp = { access_log = false }',
    "sockmgr, uvicorn's own command ({})": f"command = [{COMMAND}]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What one way to serve the application lost in RELOADS reloads."""

    name: str
    requests: int
    failed: Counter[str]


def measure(name: str) -> Drained:
    """Reload it RELOADS times; every new version must have answered before the next."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as path:
        directory = Path(path)
        app = App("asgi", directory)
        config = (
            f'[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\n{SERVED_BY[name]}\n'
            f'workers = {WORKERS}\ncwd = "{app.directory}"\n[service.web.rollout]\n'
            f"max_draining = {RELOADS}\n"
        )
        env = dict(environment(IMPORT_SECONDS="0"))
        with Manager(directory, config, env=env) as manager, Load(manager.target(), MODES) as load:
            for number in range(2, RELOADS + 2):
                app.deploy(str(number))
                done = manager.reload()
                assert done.code == 0, done.stderr
                _wait_for_version(load, str(number))
            wait_for(lambda: len(manager.workers()) == WORKERS, "the old workers to be gone")
            result = load.stop()
    failed = Counter(f"{row.mode} {row.outcome}" for row in result.failed)
    return Drained(name=name.format(version("uvicorn")), requests=len(result.rows), failed=failed)


def section() -> Section:
    """Measure each way to serve, and return the part of the document on it."""
    narrate(f"{RELOADS} reloads under kept connections …")
    found = [measure(name) for name in SERVED_BY]
    ours = found[0]
    rows = [(one.name, str(one.requests), _failures(one.failed)) for one in found]
    about = (
        f"{WORKERS} workers, {RELOADS} reloads one after the other, {CLIENTS} clients that keep "
        f"their connections and pause for {THINK * 1000:g} ms between an answer and the next "
        "request, and 100 new connections a second."
    )
    return Section(
        title="Reloads under kept connections",
        text=f"{about}\n\n{table(('served by', 'requests', 'failed'), rows)}",
        goals=[
            Goal(
                what=f"failed requests in {RELOADS} reloads, kept connections, {ours.name}",
                value=ours.failed.total(),
                limit=0,
            )
        ],
    )


def _failures(failed: Counter[str]) -> str:
    named = ", ".join(f"{count} {name}" for name, count in failed.most_common())
    return f"{failed.total()}: {named}" if failed else "0"


def _wait_for_version(load: Load, number: str) -> None:
    def answered() -> bool:
        return any(row.version == number for row in load.result.rows[-500:])

    wait_for(answered, f"version {number} to answer")
