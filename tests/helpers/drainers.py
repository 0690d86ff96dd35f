"""A worker that drains as long as it is told, as a child of a test."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from tests.helpers.children import Child, running

DRAINING = Path(__file__).parents[1] / "helpers" / "draining.py"


def draining(*more: str) -> contextlib.AbstractContextManager[Child]:
    """Start a worker that drains when it is told by QUIT."""
    return running([sys.executable, str(DRAINING), "0.2", *more])
