"""Where a manager of the version before runs, and how the one of this checkout follows it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.e2e.apps import ROOT
from tests.e2e.harness import Manager
from tests.helpers.load import Load, Target
from tests.systemd.machine import PYTHON, Machine
from tests.systemd.site import SYSUSERS, LoadInside
from tests.upgrade.services import KINDS, config

SERVICE = "shop.service"
CONFIG = "/etc/sockmgr/shop.toml"
_PROGRAM = """#!/bin/sh
export LD_LIBRARY_PATH=/srv/base/lib PYTHONPATH={code}:/srv/site PYTHONDONTWRITEBYTECODE=1
exec /srv/base/bin/python3 -c 'import sys; from sockmgr.cli import main
sys.argv[0] = "/usr/local/bin/sockmgr"; main()' "$@"
"""


class Code:
    """A directory with the package sockmgr: first that of another checkout, then that of ours."""

    def __init__(self, directory: Path, before: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._package = directory / "sockmgr"
        _copy(before / "sockmgr", self._package)
        _copy(ROOT / "sockmgr", directory / "next")

    def replace(self) -> None:
        """Install our version, as `pip install --upgrade` does."""
        self._package.rename(self.directory / "previous")
        (self.directory / "next").rename(self._package)


def _copy(package: Path, to: Path) -> None:
    shutil.copytree(package, to, ignore=shutil.ignore_patterns("__pycache__"))


class Place(Protocol):
    """A manager of all kinds of services, which serves."""

    def follow(self) -> None:
        """Have a manager of our version follow; return when it serves."""

    def load(self, service: str, modes: Sequence[str], floor: int) -> Load: ...

    def status(self) -> dict[str, Any]: ...

    def reload(self) -> int:
        """Reload every service; return the exit status."""

    def findings(self) -> list[dict[str, str]]:
        """Return what `sockmgr doctor` finds."""

    def stop(self) -> int:
        """Stop the manager; return how many processes are left of it and its workers."""


class _Other(Manager):
    """A manager whose interpreter, with its packages, is that of another checkout."""

    python = ""

    def _command(self, verb: str) -> Sequence[str]:
        return [self.python, "-m", "sockmgr", verb, "--control", str(self.control)]


class Alone:
    """Without systemd."""

    def __init__(self, directory: Path, before: Path, follow: Callable[[Manager], None]) -> None:
        self._follow = follow
        python = str(before / ".venv" / "bin" / "python")
        self._code = Code(directory / "code", before)
        # No two may be the same, even if the kernel chooses each port.
        addresses = {name: f"127.0.0.{number}:0" for number, name in enumerate(KINDS, start=1)}
        text = config(directory, python, addresses)
        path = {"PYTHONPATH": str(self._code.directory)}
        self.manager = _Other(directory, text, env=path, code=self._code.directory)
        self.manager.python = python

    def __enter__(self) -> Alone:
        self.manager.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.manager.__exit__(*error)

    def follow(self) -> None:
        self._code.replace()
        self._follow(self.manager)
        self.manager.wait_serving()

    def load(self, service: str, modes: Sequence[str], floor: int) -> Load:
        return Load(self.manager.target(service), modes, floor=floor)

    def status(self) -> dict[str, Any]:
        return self.manager.status()

    def reload(self) -> int:
        return self.manager.reload(timeout=120).code

    def findings(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.manager.run(
            "doctor", "-c", str(self.manager.config)
        ).answer
        return found

    def stop(self) -> int:
        assert self.manager.stop() == 0
        return len(self.manager.leftovers())


def upgraded(manager: Manager) -> None:
    done = manager.run("upgrade")
    assert done.code == 0, done.stderr


def killed(manager: Manager) -> None:
    manager.kill9()
    manager.start()


class _OtherMachine(Machine):
    """A machine that has the packages of another checkout."""

    before = Path()

    def _layout(self, terminal: str) -> Mapping[str, str]:
        packages = next((self.before / ".venv" / "lib").glob("python3*/site-packages"))
        return {**super()._layout(terminal), "SITE": str(packages)}


class UnderSystemd:
    """With the units that the version before wrote, and the sockets that systemd holds."""

    def __init__(self, before: Path) -> None:
        self.machine = _OtherMachine()
        self.machine.before = before
        self._addresses = {name: f"127.0.0.1:{8000 + i}" for i, name in enumerate(KINDS)}

    def __enter__(self) -> UnderSystemd:
        self.machine.__enter__()
        try:
            self._begin()
        except BaseException:
            self.machine.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            print(self.machine.journal(SERVICE))
        self.machine.__exit__()

    def _begin(self) -> None:
        machine, shared = self.machine, self.machine.shared
        self._code = Code(shared / "code", machine.before)
        machine.write("/usr/local/bin/sockmgr", _PROGRAM.format(code=self._code.directory))
        machine.write(CONFIG, config(shared, PYTHON, self._addresses))
        machine.run("systemd-sysusers", SYSUSERS)
        machine.run("sockmgr", "units", "-c", CONFIG, "--install")
        machine.systemctl("daemon-reload")
        machine.systemctl("start", *(f"shop-{name}.socket" for name in KINDS))
        machine.systemctl("start", SERVICE)

    def follow(self) -> None:
        self._code.replace()
        self.machine.systemctl("restart", SERVICE)

    def load(self, service: str, modes: Sequence[str], floor: int) -> Load:
        target = Target.at_url(f"http://{self._addresses[service]}")
        return LoadInside(self.machine.pid, target, modes, floor=floor)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._ask("status").stdout)
        return found

    def reload(self) -> int:
        return self.machine.systemctl("reload", SERVICE, check=False).returncode

    def findings(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(self._ask("doctor", check=False).stdout)
        return found

    def stop(self) -> int:
        sockets = (f"shop-{name}.socket" for name in KINDS)
        self.machine.systemctl("stop", SERVICE, *sockets)
        assert self.machine.property(SERVICE, "Result") == "success"
        return len(self.machine.run("pgrep", "--uid", "sockmgr", check=False).stdout.split())

    def _ask(self, verb: str, *, check: bool = True) -> Any:
        return self.machine.run("sockmgr", verb, "--json", "-c", CONFIG, check=check)
