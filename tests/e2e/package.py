"""The code of sockmgr as a test may replace it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.e2e.apps import ROOT


class Package:
    """A copy of sockmgr, to be changed under a manager that runs it."""

    def __init__(self, parent: Path) -> None:
        self.directory = parent / "code"
        # With its bytecode, which holds good for each file until that is changed.
        shutil.copytree(ROOT / "sockmgr", self.directory / "sockmgr")

    def install(self, version: str) -> None:
        """Be a version that differs by its name."""
        self.change("__init__.py", f'__version__ = "{version}"\n')

    def change(self, file: str, text: str) -> None:
        """Replace the text of a file."""
        path = self.directory / "sockmgr" / file
        assert path.exists()  # or nothing would change
        path.write_text(text)

    def read(self, file: str) -> str:
        return (self.directory / "sockmgr" / file).read_text()
