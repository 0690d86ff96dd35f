"""Cuts the bytes that a program prints into lines, and long lines into pieces. Pure.

No byte is lost, and only the ends of lines are changed. A line whose end has not come is kept up to
a bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

PIECE_MAX = 16 * 1024  # bytes; that of Docker and of Kubernetes' runtimes, too


class Piece(NamedTuple):
    """A line, or a part of a long line if `partial`, of which more comes.

    Bytes that are not UTF-8 are surrogates in the text, as os.fsdecode() makes them.
    """

    text: str
    partial: bool = False


class Cutter:
    """Keeps the bytes that were printed and are not in a piece yet."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Add bytes that were printed."""
        self._rest += data

    def take(self, number: int) -> list[Piece]:
        """Return the next pieces, at most so many."""
        rest, start, found = self._rest, 0, list[Piece]()
        while len(found) < number:
            end = rest.find(b"\n", start, start + PIECE_MAX + 1)
            if end >= 0:
                found.append(Piece(_text(rest[start:end].removesuffix(b"\r"))))
                start = end + 1
            elif len(rest) - start > PIECE_MAX:
                end = _between_characters(rest, start + PIECE_MAX)
                found.append(Piece(_text(rest[start:end]), partial=True))
                start = end
            else:
                break
        self._rest = rest[start:]
        return found

    @property
    def unfinished(self) -> list[Piece]:
        """The line whose end has not come; none if it has not begun. Shorter than a piece."""
        return [Piece(_text(self._rest))] if self._rest else []


def whole(pieces: Iterable[Piece], *, continued: bool = False) -> list[str]:
    """Join pieces to lines; if `continued`, the beginning of the first line is missing."""
    lines, open_line = list[str](), "..." if continued else ""
    for piece in pieces:
        open_line += piece.text
        if not piece.partial:
            lines.append(open_line)
            open_line = ""
    return [*lines, open_line] if open_line else lines


def readable(text: str) -> str:
    r"""Return `text` as UTF-8 can encode it: a byte that was not UTF-8 is shown as \xff."""
    if text.isascii():
        return text
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _between_characters(data: bytes, at: int) -> int:
    """Return the last place up to `at` between two characters; `at` if this is not UTF-8."""
    return next((at - back for back in range(4) if data[at - back] & 0xC0 != 0x80), at)
