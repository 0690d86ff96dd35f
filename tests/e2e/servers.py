"""The servers that run unmodified as workers, and how a load saw their versions."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import pytest

from sockmgr.torture.load.result import Outcome
from tests.e2e.harness import BIN, Done
from tests.helpers.load import Load, Result

MODES = ("short:rate=150", "ka:conns=8,rate=40", "slow:conns=2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How to run one server, unmodified, as a worker."""

    example: str
    command: tuple[str, ...]
    workers: int = 2
    needs: str = ""


def installed(program: str, *arguments: str) -> tuple[str, ...]:
    return (str(BIN / program), *arguments)


UVICORN = Server(
    example="asgi", command=installed("uvicorn", "--fd", "{http}", "--no-access-log", "app:app")
)


GTHREAD = Server(
    example="wsgi", command=installed("gunicorn", "-k", "gthread", "--threads", "8", "app:app")
)


SERVERS = {
    "uvicorn": UVICORN,
    "hypercorn": Server(
        example="asgi",
        command=installed("hypercorn", "-w", "0", "--bind", "fd://{http}", "app:app"),
    ),
    "gunicorn sync": Server(example="wsgi", command=installed("gunicorn", "app:app"), workers=4),
    "gunicorn gthread": GTHREAD,
    "uwsgi": Server(
        example="wsgi",
        command=installed(
            "uwsgi", "--master", "--protocol", "http", "--threads", "8", "--need-app",
            "-w", "app:app", "--disable-logging",
            "--hook-master-start", "unix_signal:15 gracefully_kill_them_all",
        ),
    ),
    "granian": Server(
        example="asgi", command=installed("granian", "--interface", "asgi", "app:app")
    ),
    "node": Server(example="node", command=("node", "server.js"), needs="node"),
    "accept loop": Server(
        example="plain", command=installed("python", "accept_loop.py"), workers=5
    ),
}  # fmt: skip


def has_answered(load: Load, version: str) -> bool:
    rows = load.result.rows[-300:]
    return any(row.version == version and row.outcome is Outcome.OK for row in rows)


def stale(result: Result, reloads: list[Done]) -> list[str]:
    """Name each new connection that began after a verdict and met an older version."""
    found = []
    for number, done in enumerate(reloads, start=2):
        met = [
            row for row in result.rows
            if row.fresh and row.began > done.ended_at and row.version and int(row.version) < number
        ]  # fmt: skip
        found += [f"{row.began - done.ended_at:.3f} s after: {row}" for row in met]
    return found


def skip_unless_installed(program: str) -> None:
    if program and shutil.which(program) is None:
        assert os.environ.get("CI") != "true", f"{program} is missing, and CI must not skip it"
        pytest.skip(f"{program} is not installed")
