"""The code that the server under torture runs: puts versions in place, and broken ones.

Owns the directory of `--app`. Elsewhere the commands of `--deploy` and `--break` do it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sockmgr.errors import ConfigError
from sockmgr.torture.plan import Plan
from sockmgr.torture.server import Done, Server

BROKEN = "import a_module_that_nobody_installed"


class Project:
    """Versions are numbers that only grow: each deployment is the next one."""

    def __init__(self, plan: Plan, home: Path) -> None:
        self._plan = plan
        self.cwd = home if plan.own_app else Path.cwd()
        self.version = 1
        if plan.own_app:
            shutil.copyfile(Path(__file__).with_name("app.py"), home / "app.py")
            self._write('VERSION = "1"')

    def deploy(self, server: Server) -> str:
        """Put the next version in place; return it. Raises ConfigError."""
        self.version += 1
        if self._plan.own_app:
            self._write(f'VERSION = "{self.version}"')
        else:
            _check(server.run(self._plan.deploy, version=self.version), "--deploy")
        return str(self.version)

    def spoil(self, server: Server) -> None:
        """Put a version in place that cannot be loaded. Raises ConfigError."""
        if self._plan.own_app:
            self._write(BROKEN)
        else:
            _check(server.run(self._plan.break_, version=self.version), "--break")

    def _write(self, code: str) -> None:
        # In one step, as a deployment does it: a worker may be reading.
        new = self.cwd / "version.py.new"
        new.write_text(f"{code}\n")
        new.replace(self.cwd / "version.py")


def _check(done: Done, option: str) -> None:
    if done.code:
        raise ConfigError(
            f"the command of {option} ended with {done.code}", means=done.said, do="correct it"
        )
