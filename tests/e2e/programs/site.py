"""Two services that are released together, `web` and `back`, each with a listener and releases."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, Release, answered
from tests.helpers.load import Load

NAMES = ("web", "back")


class Site:
    """The releases of both services, and their config."""

    def __init__(self, parent: Path, *keys: str, fault: str = "none", top: str = "",
                 probation: float = 0.3) -> None:  # fmt: skip
        self.keys, self._top, self._probation = keys, top, probation
        self.of: dict[str, Release] = {}
        for name in NAMES:
            (parent / name).mkdir()
            self.of[name] = Release(parent / name, fault=fault)
        self.scheme = "tcp://127.0.0.1:0", "tcp://127.0.0.2:0"

    def config(self, *names: str, **more: str) -> str:
        """Return the config of these services (none: of both), with `more` lines for one."""
        names = names or NAMES
        lines = ["[listen]"]
        lines += [f'{n} = "{at}"' for n, at in zip(NAMES, self.scheme, strict=True) if n in names]
        rollout = (f"probation = {self._probation}", "max_failed_starts = 1")
        for name in names:
            keys = (f'listen = ["{name}"]', *self.keys, *more.get(name, "").splitlines())
            lines.append(self.of[name].service(*keys, name=name, rollout=rollout))
        return "\n".join([*lines, self._top]) + "\n"

    def deploy(self, version: str, **faults: str) -> None:
        """Have both answer `version`; `faults` of a service, "none" for the others."""
        for name in NAMES:
            self.of[name].deploy(version, faults.get(name, "none"))


class Asked:
    """`sockmgr reload` as a process, which is waited for later."""

    def __init__(self, manager: Manager, *arguments: str) -> None:
        argv = [sys.executable, "-m", "sockmgr", "reload", "--control", str(manager.control)]
        self._process = subprocess.Popen(
            [*argv, "--json", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def verdicts(self, *, code: int = 0) -> dict[str, dict[str, Any]]:
        """Wait for its end; return the verdict on each service."""
        out, err = self._process.communicate(timeout=60)
        assert self._process.returncode == code, err or out
        return {verdict["service"]: verdict for verdict in json.loads(out)}

    def hang_up(self) -> None:
        """Do not wait."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def loaded(manager: Manager, version: str = "1") -> Iterator[dict[str, Load]]:
    """Load both services for as long as this lasts; no request may fail."""
    with contextlib.ExitStack() as stack:
        loads = {name: stack.enter_context(Load(manager.target(name), LIGHT)) for name in NAMES}
        for load in loads.values():
            answered(load, version)
        yield loads
    for name, load in loads.items():
        assert not load.result.failed, (name, load.result.failures())


def rollouts(manager: Manager) -> dict[str, str]:
    """Return the phase of each rollout under way."""
    services = manager.status()["services"]
    return {name: s["rollout"]["phase"] for name, s in services.items() if s["rollout"]}


def generations(manager: Manager) -> dict[str, int]:
    """Return the generation of each service that serves."""
    return {name: s["generation"] for name, s in manager.status()["services"].items()}


def settled(manager: Manager, number: int) -> None:
    """Wait until both services are at this generation, and nothing is under way."""

    def at_rest() -> bool:
        return not rollouts(manager) and generations(manager) == dict.fromkeys(NAMES, number)

    wait_for(at_rest, f"generation {number} of both services, in:\n{manager.log}")
