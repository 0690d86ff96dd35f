"""What kind of file system a path is on, from /proc/self/mountinfo. Decides nothing."""

from __future__ import annotations

import re
from pathlib import Path

_ESCAPE = re.compile(r"\\([0-7]{3})")


def file_system(path: Path) -> str:
    """Return the type of the file system that `path` is on, such as "ext4"; "" if nobody says."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        real = path.resolve()
    except OSError:
        return ""
    found, depth = "", -1
    for line in lines:  # proc_pid_mountinfo(5); of two on one point the later is above
        mount, _, rest = line.partition(" - ")
        point = Path(_ESCAPE.sub(lambda code: chr(int(code[1], 8)), mount.split()[4]))
        if len(point.parts) >= depth and real.is_relative_to(point):
            found, depth = rest.split()[0], len(point.parts)
    return found
