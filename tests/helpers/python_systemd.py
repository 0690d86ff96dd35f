"""A place in the path of Python that has python-systemd look as if it were not installed."""

from __future__ import annotations

from pathlib import Path

STUB = "raise ImportError('hidden by a test')\n"


def hidden_python_systemd(parent: Path) -> Path:
    """Return a directory for PYTHONPATH."""
    package = parent / "hidden" / "systemd"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STUB)
    return package.parent
