"""The example applications, copied so that a test can deploy to them and break them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


class App:
    """One copy of an example in a directory of its own."""

    def __init__(self, example: str, parent: Path) -> None:
        self.directory = parent / example
        shutil.copytree(
            EXAMPLES / example, self.directory, ignore=shutil.ignore_patterns("__pycache__")
        )
        self._node = (self.directory / "version.json").exists()

    def deploy(self, version: str) -> None:
        """Put a version in place, in one step, as a deployment does."""
        if self._node:
            self._replace("version.json", json.dumps({"version": version}))
        else:
            self.deploy_code(f'VERSION = "{version}"')

    def deploy_broken(self) -> None:
        """Put a version in place that cannot be loaded."""
        if self._node:
            self._replace("version.json", "{")
        else:
            self.deploy_code("import a_module_that_nobody_installed")

    def deploy_code(self, code: str) -> None:
        """Put this in place of the version of a Python application."""
        self._replace("version.py", f"{code}\n")

    def _replace(self, name: str, text: str) -> None:
        new = self.directory / f"{name}.new"
        new.write_text(text)
        new.replace(self.directory / name)
