"""Cuts the bytes that a program prints into lines, and long lines into pieces. Pure.

No byte is lost except the ends of lines. A line that has not ended yet is kept, but no more of it
than one piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

PIECE_MAX = 16 * 1024  # bytes; Docker and the runtimes of Kubernetes have the same limit


class Piece(NamedTuple):
    """A line; if `partial`, one part of a long line, and the next piece continues it.

    A byte that is not UTF-8 is a surrogate in the text, as with os.fsdecode().
    """

    text: str
    partial: bool = False


class Cutter:
    """Holds the bytes that a program has printed and that have not been returned in a piece yet."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> None:
        self._rest += data

    def take(self, number: int) -> list[Piece]:
        """Return the next pieces, at most `number` of them."""
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

    def skip(self, kept: int) -> int:
        """Forget all but the last `kept` lines and what has begun; return how many those were."""
        start = len(self._rest)
        for _ in range(kept + 1):
            start = self._rest.rfind(b"\n", 0, start)
            if start < 0:
                return 0
        skipped = self._rest.count(b"\n", 0, start + 1)
        self._rest = self._rest[start + 1 :]
        return skipped

    @property
    def unfinished(self) -> list[Piece]:
        """The line that has not ended yet, as one piece; an empty list if none has begun."""
        return [Piece(_text(self._rest))] if self._rest else []


def whole(pieces: Iterable[Piece], *, continued: bool = False) -> list[str]:
    """Join pieces into lines; if `continued`, the first is incomplete, and begins with `...`."""
    lines, open_line = list[str](), "..." if continued else ""
    for piece in pieces:
        open_line += piece.text
        if not piece.partial:
            lines.append(open_line)
            open_line = ""
    return [*lines, open_line] if open_line else lines


def readable(text: str) -> str:
    r"""Return `text` in a form that UTF-8 can encode: a byte that was not UTF-8 becomes \xff."""
    if text.isascii():
        return text
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _between_characters(data: bytes, at: int) -> int:
    """Return the last boundary of a character up to `at`, or `at` itself if this is not UTF-8."""
    return next((at - back for back in range(4) if data[at - back] & 0xC0 != 0x80), at)
