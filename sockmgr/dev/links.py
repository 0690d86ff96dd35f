"""Which names in the file system lead to a file: the links on the way, and where the way ends."""

from __future__ import annotations

import os

_LINKS_MAX = 40  # as many as the kernel follows: path_resolution(7)


def ways(path: str) -> list[str]:
    """Return each link on the way to an absolute `path`, and the name at which the way ends.

    A change of any of these names changes what `path` means. The way ends at the file, or at the
    first name that does not exist.
    """
    found: list[str] = []
    left, at = path.split("/")[:0:-1], ""
    while left and len(found) < _LINKS_MAX:
        name = left.pop()
        if name == "..":
            at = at.rpartition("/")[0]
        elif name not in ("", "."):
            at = f"{at}/{name}"
            target = _target(at)
            if target:
                found.append(at)
                at = "" if target.startswith("/") else at.rpartition("/")[0]
                left += target.split("/")[::-1]
            elif target is None:
                break
    return [*found, at]


def _target(path: str) -> str | None:
    """Return the target of a link, "" if the path is no link, None if it does not exist."""
    try:
        return os.readlink(path)  # noqa: PTH115 - text in, text out
    except FileNotFoundError:
        return None
    except OSError:
        return ""
