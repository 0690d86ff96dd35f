"""Recognise in the last words of a worker that its sandbox refused it something."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The messages of cffi, llvmlite (numba), V8 (Node), Ruby's YJIT and PHP's JIT.
_NO_CODE = re.compile(
    r"annot allocate write\+execute memory"
    r"|annot allocate executable memory"
    r"|Check failed: 12 == \(\*__errno_location \(\)\)"
    r"|make JIT page .*executable"
    r"|mprotect\(\) failed \[13\]"
)
NO_CODE = "memory that is both written and executed is refused here, and a program needs it"
ALLOW_CODE = (
    "under systemd that is MemoryDenyWriteExecute=yes: `systemctl edit` the unit, with "
    "MemoryDenyWriteExecute=no below [Service], and restart and reload it"
)


def is_refused_code(lines: Iterable[str]) -> bool:
    """Return whether the lines say that a compiler may not execute the code that it has written."""
    return any(map(_NO_CODE.search, lines))
