"""Makes keys of characters, because an arrow key sends several characters. Pure."""

from __future__ import annotations

_ESCAPE = "\x1b"
_ARROWS = {"A": "up", "B": "down"}  # CSI A and SS3 A: ctlseqs of xterm


class Strokes:
    """Takes the characters of a terminal one by one, and remembers a sequence that has begun."""

    def __init__(self) -> None:
        self._begun = ""

    def take(self, character: str) -> str:
        """Return the key that `character` completes: `up`, `down` or the character; "" if none."""
        if character == _ESCAPE:
            self._begun = _ESCAPE
            return _ESCAPE
        if self._begun == _ESCAPE and character in "[O":
            self._begun += character
            return ""
        if len(self._begun) > 1:
            # ECMA-48: a sequence is any number of parameters, then one final byte from @ to ~.
            if "@" <= character <= "~":
                self._begun = ""
                return _ARROWS.get(character, "")
            return ""
        self._begun = ""
        return character
