"""Makes text of other programs safe for a terminal: colours pass, the rest is shown. Pure."""

from __future__ import annotations

import re

# Select Graphic Rendition, ECMA-48: what `less -R` lets through, too.
_SGR = re.compile(r"(\x1b\[[0-9;:]*m)")


def visible(text: str, *, colours: bool = True) -> str:
    r"""Return one line in which control characters are written out, an escape as \x1b."""
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
    if "\udc80" <= character <= "\udcff":  # a byte that was no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
