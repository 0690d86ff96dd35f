"""Makes the text of other programs safe for a terminal: only colours take effect. Pure."""

from __future__ import annotations

import re

# Select Graphic Rendition (ECMA-48), which `less -R` lets through as well.
_SGR = re.compile(r"(\x1b\[[0-9;:]*m)")


def visible(text: str, *, colours: bool = True) -> str:
    r"""Return one line with its control characters written out, so that an escape is \x1b."""
    if text.isprintable():
        return text
    parts = _SGR.split(text)
    shown = [
        part * colours if index % 2 else "".join(map(_shown, part))
        for index, part in enumerate(parts)
    ]
    return "".join([*shown, "\x1b[0m" if colours and len(parts) > 1 else ""])


def _shown(character: str) -> str:
    if character.isprintable() or character == "\t":
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that was not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
