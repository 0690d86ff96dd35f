"""Placeholders in a command: `{name}` stands for the fd number of the listener `name`.

`{slot}` stands for the number of the worker's slot, also in variables. `{{name}}` is the text
`{name}` itself. Braces behind a dollar, which are a shell's, and around anything else (`{}`, JSON)
are plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

FIRST_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
NAME = r"[A-Za-z_][A-Za-z0-9_.-]*"
SLOT = "slot"  # no listener has this name
_PLACEHOLDER = re.compile(
    r"\{\{(?P<plain>" + NAME + r")\}\}|(?<!\$)\{(?P<listener>" + NAME + r")\}"
)
_SLOT = re.compile(r"\{(?P<plain>\{slot\})\}|\{slot\}")


def names(argv: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the listeners in `argv`, in order, each once."""
    found = (match["listener"] for text in argv for match in _PLACEHOLDER.finditer(text))
    return tuple(dict.fromkeys(name for name in found if name and name != SLOT))


def literal(text: str) -> str:
    """Return `text` with its braces escaped, so that fill() returns it unchanged."""
    return re.sub(r"\{(" + NAME + r")\}", r"{{\1}}", text)


def fill(argv: Iterable[str], fds: Mapping[str, int], slot: int) -> tuple[str, ...]:
    """Return `argv` with each listener's name replaced by its fd number, and `{slot}` by `slot`."""
    numbers = {SLOT: slot, **fds}

    def number(match: re.Match[str]) -> str:
        return f"{{{match['plain']}}}" if match["plain"] else str(numbers[match["listener"]])

    return tuple(_PLACEHOLDER.sub(number, text) for text in argv)


def names_slot(text: str) -> bool:
    """Return whether `{slot}` is in `text`, where no listener can be named."""
    return in_slot(text, 0) != in_slot(text, 1)


def in_slot(text: str, slot: int) -> str:
    """Return `text`, where no listener can be named, with `{slot}` replaced by `slot`."""
    return _SLOT.sub(lambda match: match["plain"] or str(slot), text)
