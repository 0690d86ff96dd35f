"""What a wheel has beside the package, under share/: made when the wheel is built.

Manual pages, completions and the schema come from the code; units, alerts and so on from contrib.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CONTRIB = ("systemd", "prometheus", "grafana")
# Where man(1) and the shells look below a prefix.
MADE = {
    "share/sockmgr/sockmgr.schema.json": ("schema",),
    "share/bash-completion/completions/sockmgr": ("completions", "bash"),
    "share/zsh/site-functions/_sockmgr": ("completions", "zsh"),
    "share/fish/vendor_completions.d/sockmgr.fish": ("completions", "fish"),
}


class Share(BuildHookInterface[Any]):
    """Makes the files below share/ in a directory of its own, and removes it in the end."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them to a wheel that is to be installed; an editable one leaves them out."""
        if version == "editable":
            return
        self._directory = tempfile.TemporaryDirectory(prefix="sockmgr-share-")
        made = Path(self._directory.name)
        for name, verb in MADE.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._python("sockmgr", *verb))
        self._python("docs.make_man", f"{made}/share/man")
        shared = {str(path): str(path.relative_to(made)) for path in _files(made / "share")}
        contrib = Path(self.root, "contrib")
        shared |= {
            str(path): f"share/sockmgr/{path.relative_to(contrib)}"
            for name in CONTRIB
            for path in _files(contrib / name)
        }
        build_data["shared_data"] = shared

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made."""
        del build_data, artifact_path
        if version != "editable":
            self._directory.cleanup()

    def _python(self, module: str, *arguments: str) -> bytes:
        """Return what a module of the tree prints; its own words go where the build's do."""
        # -m finds it in the tree, and PYTHONPATH stays as it is: by that pip shows what we require.
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root, stdout=subprocess.PIPE, check=True,
        ).stdout  # fmt: skip


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
