"""Deletes bytecode that Python would wrongly use for an edited file.

Python compares only the size of a source and the second of its time stamp (PEP 3147). If two saves
within one second leave the size the same, it would go on running the first.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable
from pathlib import Path

_HEADER = struct.Struct("<4sIII")  # magic, flags, time, size: PEP 552


def forget(paths: Iterable[str], prefix: str = "") -> list[Path]:
    """Delete the files that Python takes for the bytecode of these sources, and return them.

    `prefix` is the PYTHONPYCACHEPREFIX of the workers, "" if they have none.
    """
    gone: list[Path] = []
    for source in map(Path, paths):
        if source.suffix != ".py":
            continue
        folder = Path(prefix, *source.parent.parts[1:]) if prefix else source.parent / "__pycache__"
        for compiled in folder.glob(f"{_literal(source.stem)}.*.pyc"):
            if _passes(compiled, source):
                with contextlib.suppress(OSError):
                    compiled.unlink()
                    gone.append(compiled)
    return gone


def _passes(compiled: Path, source: Path) -> bool:
    try:
        with compiled.open("rb") as file:
            _, flags, written, size = _HEADER.unpack(file.read(_HEADER.size))
        found = source.stat()
    except (OSError, struct.error):
        return False
    same = (int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
    return flags == 0 and (written, size) == same


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
