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
    left, at = path.split("/")[::-1], "/"
    while left and len(found) < _LINKS_MAX:
        # No link is on the way to `at`, so `..` is the name above.
        at = os.path.normpath(os.path.join(at, left.pop()))  # noqa: PTH118 - text in, text out
        try:
            target = os.readlink(at)  # noqa: PTH115
        except FileNotFoundError:
            break
        except OSError:  # it is no link
            continue
        found.append(at)
        at = "/" if target.startswith("/") else os.path.dirname(at)  # noqa: PTH120
        left += target.split("/")[::-1]
    return [*found, at.rstrip("/")]
