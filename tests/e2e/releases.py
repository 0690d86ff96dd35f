"""Releases in directories of their own, for workers of each accept model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.e2e.apps import EXAMPLES, ROOT
from tests.e2e.harness import BIN

PYTHON = str(BIN / "python")
COMMANDS = {
    "shared": (PYTHON, "-S", "accept_loop.py"),
    "per-worker": (PYTHON, "-S", "accept_loop.py"),
    "dispatch": (PYTHON, str(ROOT / "tests/e2e/programs/passed.py")),
}


class Site:
    """Releases in directories of their own, and the link `current` to the newest."""

    def __init__(self, parent: Path, accept: str = "shared", more: str = "") -> None:
        self.parent, self.current = parent, parent / "current"
        self.deploy("1")
        self.config = f"""
[listen]
http = "tcp://127.0.0.1:0"

[service.web]
command = {json.dumps(COMMANDS[accept])}
accept = "{accept}"
workers = 2
cwd = "{self.current}"
{more}

[service.web.rollout]
probation = 0.2
max_failed_starts = 1
"""

    def directory(self, version: str) -> Path:
        return self.parent / "releases" / version

    def deploy(self, version: str, code: str = "") -> None:
        """Have the next reload start this version."""
        shutil.copytree(EXAMPLES / "plain", self.directory(version))
        self.directory(version).joinpath("version.py").write_text(
            code or f'VERSION = "{version}"\n'
        )
        self.directory(version).joinpath("REVISION").write_text(f"r{version}\n")
        link = self.parent / "new"
        link.symlink_to(self.directory(version))
        link.rename(self.current)
