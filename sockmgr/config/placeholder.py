"""`{name}` in a command: stands for the fd number of the listener of that name.

`{{name}}` is the text `{name}` itself. Braces around anything else (`{}`, JSON) are plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

FIRST_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
NAME = r"[A-Za-z_][A-Za-z0-9_.-]*"
_PLACEHOLDER = re.compile(r"\{\{(?P<plain>" + NAME + r")\}\}|\{(?P<listener>" + NAME + r")\}")


def names(argv: Iterable[str]) -> tuple[str, ...]:
    """Return the listeners that `argv` names, in order, each once."""
    found = (match["listener"] for text in argv for match in _PLACEHOLDER.finditer(text))
    return tuple(dict.fromkeys(name for name in found if name))


def literal(text: str) -> str:
    """Return what stands for `text` itself, whatever braces are in it."""
    return re.sub(r"\{(" + NAME + r")\}", r"{{\1}}", text)


def fill(argv: Iterable[str], fds: Mapping[str, int]) -> tuple[str, ...]:
    """Return `argv` with each listener's name replaced by its fd number."""

    def number(match: re.Match[str]) -> str:
        return f"{{{match['plain']}}}" if match["plain"] else str(fds[match["listener"]])

    return tuple(_PLACEHOLDER.sub(number, text) for text in argv)
