"""What a test deploys: the worker of worker.py with a version and a fault, and its config."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sockmgr.torture.load.result import Outcome, Row
from tests.e2e.harness import Manager, wait_for
from tests.helpers.load import Load

PROGRAM = Path(__file__).with_name("worker.py")
LIGHT = ("short:rate=60",)


class Gate:
    """What workers that boot in `directory` wait at, if their fault is "waits for go"."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "go"
        os.mkfifo(self._path)

    def open(self) -> None:
        """Let those who wait go on, and those who are still to come."""
        fd = os.open(self._path, os.O_RDWR)  # whoever waits has a writer now
        self._path.unlink()
        os.close(fd)


class Release:
    """Directories with the files that worker.py looks at, and the link `current` to the newest."""

    def __init__(self, parent: Path, version: str = "1", fault: str = "none") -> None:
        self._parent = parent
        self.current = parent / "current"
        self.deploy(version, fault)

    def deploy(self, version: str, fault: str = "none") -> None:
        """Let the next generation answer `version`, and do what `fault` says."""
        self.directory = self._parent / f"release-{version}"
        self.directory.mkdir(exist_ok=True)
        (self.directory / "version").write_text(version)
        self.spoil(fault)
        link = self._parent / "new"
        link.symlink_to(self.directory)
        link.rename(self.current)

    def hold(self, version: str) -> Gate:
        """Deploy a version whose workers are not ready before the gate is opened."""
        self.deploy(version, "waits for go")
        return Gate(self.directory)

    def spoil(self, fault: str) -> None:
        """Let workers of the newest release that start from now on do what `fault` says."""
        (self.directory / "fault").write_text(fault)

    def service(self, *keys: str, name: str = "web", rollout: tuple[str, ...] = ()) -> str:
        """Return the table of a service; `keys` are more lines of it."""
        lines = (
            f"[service.{name}]",
            f'command = ["{sys.executable}", "-S", "-E", "{PROGRAM}"]',
            f'cwd = "{self.current}"',
            *keys,
            f"[service.{name}.rollout]",
            *(rollout or ("probation = 0.2", "max_failed_starts = 1")),
        )
        return "\n".join(lines) + "\n"

    def config(
        self,
        *keys: str,
        address: str = "tcp://127.0.0.1:0",
        rollout: tuple[str, ...] = (),
    ) -> str:
        """Return the config of one service with one listener, `http`."""
        return f'[listen]\nhttp = "{address}"\n{self.service(*keys, rollout=rollout)}'


class Ask:
    """A rollout that was asked for on the control socket; the answer is waited for later."""

    def __init__(self, manager: Manager, method: str = "Reload") -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(30)
        self._sock.connect(str(manager.control))
        call = {"method": f"io.sockmgr.Manager.{method}", "parameters": {}}
        self._sock.sendall(json.dumps(call).encode() + b"\0")

    def verdict(self) -> dict[str, Any]:
        """Wait for the verdict on the one service; raise RuntimeError if it was refused."""
        data = b""
        with self._sock:
            while not data.endswith(b"\0"):
                data += self._sock.recv(65536)
        reply = json.loads(data[:-1])
        if "error" in reply:
            raise RuntimeError(reply["parameters"]["what"])
        (found,) = reply["parameters"]["verdicts"]
        verdict: dict[str, Any] = found
        return verdict

    def hang_up(self) -> None:
        """Do not wait."""
        self._sock.close()


def serving(manager: Manager, service: str = "web") -> tuple[int, set[int]]:
    """Return the generation that serves, and the pids of its workers."""
    found = manager.status()["services"][service]
    number = found["generation"]
    return number, {w["pid"] for w in found["workers"] if w["generation"] == number}


def answered(load: Load, version: str = "", count: int = 1) -> list[Row]:
    """Wait until so many requests sent from now on were answered (by `version`)."""
    first = len(load.result.rows)

    def found() -> list[Row]:
        rows = load.result.rows[first:]
        good = [r for r in rows if r.outcome is Outcome.OK and version in ("", r.version)]
        return good if len(good) >= count else []

    return wait_for(found, f"{count} answers {version and 'of version ' + version}", timeout=10)


@contextlib.contextmanager
def unharmed(manager: Manager, mode: str = LIGHT[0]) -> Iterator[Load]:
    """Whatever happens inside: what served before goes on serving, and no request fails."""
    before = serving(manager)
    with Load(manager.target(), [mode]) as load:
        answered(load)
        yield load
        answered(load, count=3)
        result = load.stop()
    assert not result.failed, result.failures()
    # One worker more may be there for a while, for a queue that a dead one left.
    wait_for(lambda: serving(manager) == before, "the workers to be what they were", timeout=10)


def wait_in_log(manager: Manager, *texts: str, timeout: float = 10.0) -> str:
    """Wait for a line of the manager's log that has all these texts; return it."""

    def found() -> str:
        lines = manager.log.splitlines()
        return next((line for line in lines if all(text in line for text in texts)), "")

    return wait_for(found, f"a line with {texts} in:\n{manager.log}", timeout=timeout)


def wait_gone(manager: Manager) -> None:
    """Wait until nothing is left of this run but the manager and the workers it knows of."""

    def left(manager: Manager) -> bool:
        known = {w["pid"] for s in manager.status()["services"].values() for w in s["workers"]}
        return set(manager.leftovers()) <= known

    wait_for(partial(left, manager), "all but the workers to be gone", timeout=10)
