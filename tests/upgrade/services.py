"""The services of a manager that is upgraded: a server of each kind, and who accepts for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.apps import EXAMPLES, App

NEW = "short:rate=40"
KEPT = "kat:conns=3,think=0.05"
UNDER_WAY = ("slow:conns=2,s=0.5", "stream:conns=1,s=1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of server: `keys` are lines of its table, and `example` is what it serves.

    One that `closes` ends idle connections when it drains, so a client that uses them must retry.
    """

    example: str
    keys: Sequence[str] = ()
    module: Sequence[str] = ()
    closes: bool = False

    @property
    def is_c(self) -> bool:
        return self.example == "dispatch-c"

    def modes(self, *, drains: bool) -> tuple[str, ...]:
        """Return the load, which has kept connections only where none may fail."""
        if self.is_c:
            return (NEW,)  # it closes each connection after one answer
        return (NEW, *UNDER_WAY, *(() if drains and self.closes else (KEPT,)))


def _app(*keys: str, example: str = "asgi") -> Kind:
    return Kind(example=example, keys=('app = "app:app"', "http = { access_log = false }", *keys))


KINDS: Mapping[str, Kind] = {
    "uvicorn": Kind(
        example="asgi", module=("uvicorn", "--fd", "{uvicorn}", "--no-access-log", "app:app"),
        closes=True,
    ),
    "gthread": Kind(
        example="wsgi", module=("gunicorn", "-k", "gthread", "--threads", "8", "app:app"),
        closes=True,
    ),
    "granian": Kind(
        example="asgi", module=("granian", "--interface", "asgi", "app:app"), closes=True
    ),
    "app": _app('accept = "shared"'),
    "wsgi": _app('accept = "shared"', "preload = true", example="wsgi"),
    "per-worker": _app('accept = "per-worker"', "preload = true"),
    "dispatch": _app('accept = "dispatch"', "preload = true"),
    "c": Kind(
        example="dispatch-c",
        keys=('command = ["./worker"]', 'accept = "dispatch"', 'policy = "least-connections"'),
    ),
}  # fmt: skip


def config(directory: Path, python: str, addresses: Mapping[str, str]) -> str:
    """Copy what is served into `directory`, and return a config for servers of this interpreter.

    `addresses` says of each kind where it listens.
    """
    listeners = [f'{name} = "tcp://{address}"' for name, address in addresses.items()]
    lines = ['name = "shop"', "[listen]", *listeners]
    for name in addresses:
        kind = KINDS[name]
        (directory / name).mkdir()
        cwd = App(kind.example, directory / name).directory
        if kind.is_c:
            build = [
                "cc",
                "-O2",
                "-o",
                str(cwd / "worker"),
                str(EXAMPLES / kind.example / "worker.c"),
            ]
            subprocess.run(build, check=True)
        command = [f"command = {json.dumps([python, '-m', *kind.module])}"] if kind.module else []
        lines += [
            f"[service.{name}]", "workers = 2", f'listen = ["{name}"]', f'cwd = "{cwd}"',
            *command, *kind.keys,
        ]  # fmt: skip
    return "\n".join(lines) + "\n"
