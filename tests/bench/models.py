"""Each way to share a listener with each server, reloaded under load: what new connections lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.costs import directory
from tests.bench.report import Goal, Section, narrate, table
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.e2e.servers import MODES, SERVERS, Server, has_answered
from tests.helpers.load import Load, Result

RELOADS = 5
# Our own runtime is the only one here that takes connections from the manager.
RUNTIME = Server(example="asgi", command=())
MODELS = ("shared", "per-worker", "dispatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One server under one model, reloaded RELOADS times."""

    server: str
    model: str
    requests: int
    lost: int  # on new connections
    races: int  # on kept ones that the server closed as they were used again
    failures: str


def section() -> Section:
    """Measure all of them."""
    cells = list(_cells())
    modes = ", ".join(f"`{mode}`" for mode in MODES)
    about = (
        f"{RELOADS} reloads each, under {modes}: requests, and how many failed on new connections; "
        "*closed as used*: requests on kept-alive connections that the server closed in the "
        "instant in which the client used them again. Only the runtime takes connections that the "
        "manager accepted."
    )
    return Section(
        title="Every model with every server",
        text=f"{about}\n\n{table(('server', *MODELS), list(_rows(cells)))}",
        goals=[
            Goal(what="failed on new connections, every model with every server",
                 value=sum(cell.lost for cell in cells), limit=0),
            Goal(what="failed at all, the runtime",
                 value=sum(cell.lost + cell.races for cell in cells if cell.server == "runtime"),
                 limit=0),
        ],
    )  # fmt: skip


def _rows(cells: Sequence[Cell]) -> Iterator[tuple[str, ...]]:
    for server in dict.fromkeys(cell.server for cell in cells):
        found = {cell.model: cell for cell in cells if cell.server == server}
        yield server, *(_told(found[model]) if model in found else "" for model in MODELS)


def _told(cell: Cell) -> str:
    races = f", {cell.races} closed as used" if cell.races else ""
    return f"{cell.lost} of {cell.requests}{races}"


def _cells() -> Iterator[Cell]:
    for name, server in {**SERVERS, "runtime": RUNTIME}.items():
        if server.needs and shutil.which(server.needs) is None:
            continue
        for model in MODELS:
            if model != "dispatch" or server is RUNTIME:
                narrate(f"{name}, {model} …")
                result = _reloaded(server, model)
                if result.failed:
                    narrate(result.failures())
                yield Cell(
                    server=name, model=model, requests=len(result.rows), lost=len(result.lost),
                    races=len(result.races), failures=result.failures(),
                )  # fmt: skip


def _reloaded(server: Server, model: str) -> Result:
    with directory() as path:
        app = App(server.example, path)
        text = config(server, model, app.directory)
        with Manager(path, text) as manager, Load(manager.target(), MODES) as load:
            for version in map(str, range(2, RELOADS + 2)):
                app.deploy(version)
                done = manager.reload()
                assert done.code == 0, done.stderr
                wait_for(partial(has_answered, load, version), "its answer")
            return load.stop()


def config(server: Server, model: str, cwd: Path, *, workers: int = 0, more: str = "") -> str:
    """Return a config of one service, `more` in it; the runtime is a server without a command."""
    words = ", ".join(f'"{word}"' for word in server.command)
    return f"""
[listen]
http = "tcp://127.0.0.1:0"

[service.web]
{f"command = [{words}]" if words else 'app = "app:app"'}
accept = "{model}"
workers = {workers or server.workers}
cwd = "{cwd}"
{more}
[service.web.rollout]
probation = 0.2
max_draining = 20
"""
