"""The capabilities of this process, capabilities(7)."""

from __future__ import annotations

import re
from pathlib import Path

CAP_SYS_NICE, CAP_SYS_RESOURCE = 23, 24


def has_capability(number: int) -> bool:
    """Return whether a capability is in our effective set."""
    status = Path("/proc/self/status").read_text("ascii", "replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> number & 1)
