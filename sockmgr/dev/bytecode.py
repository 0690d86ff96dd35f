"""Deletes the bytecode of edited files, which Python might use for what they are now.

Python compares only the size of a source and the second of its time stamp (PEP 3147). If two saves
within one second leave the size the same, it would go on running the first.
"""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterable
from pathlib import Path


def forget(paths: Iterable[str], prefix: str = "") -> list[Path]:
    """Delete the bytecode of these sources, and return its files.

    `prefix` is the PYTHONPYCACHEPREFIX of the workers, "" if they have none.
    """
    gone: list[Path] = []
    for source in map(Path, paths):
        if source.suffix != ".py":
            continue
        folder = Path(prefix, *source.parent.parts[1:]) if prefix else source.parent / "__pycache__"
        for compiled in folder.glob(f"{glob.escape(source.stem)}.*.pyc"):
            with contextlib.suppress(OSError):
                compiled.unlink()
                gone.append(compiled)
    return gone
