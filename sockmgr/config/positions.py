"""Find the line and column of a key in a TOML text that tomli has accepted. Checks no value.

tomli has positions only for syntax errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import tomli

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")


@dataclass(frozen=True, slots=True)
class Position:
    """A line and a column, both counted from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


def find(text: str, path: Path, *, key: bool = False) -> Position:
    """Return where the value (or the key) of `path` begins; where its table is if it is missing."""
    text = text.replace("\r\n", "\n")  # as tomli does before it counts
    scanner = _Scanner(text)
    scanner.document()
    for length in range(len(path), 0, -1):
        if place := scanner.places.get(path[:length]):
            inexact = length < len(path)
            return position(text, place[0] if key or inexact else place[1])
    return Position(1, 1)


def position(text: str, offset: int) -> Position:
    """Turn an offset in `text` into line and column."""
    return Position(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


class _Scanner:
    """One walk over a valid text, which collects in `places` the offsets of keys and values."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0
        self.places: dict[Path, tuple[int, int]] = {}  # of the key, and of the value
        self._lengths: dict[Path, int] = {}  # arrays of tables: how many so far

    def document(self) -> None:
        table: Path = ()
        while self._next() != "":
            if self._next() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _next(self) -> str:
        """Skip blanks and comments; return the character that follows, "" at the end."""
        if match := _BLANK.match(self.text, self.offset):
            self.offset = match.end()
        return self.text[self.offset : self.offset + 1]

    def _header(self) -> Path:
        start = self.offset
        brackets = 2 if self.text.startswith("[[", start) else 1
        self.offset += brackets
        names = self._key()
        self._next()
        self.offset += brackets
        table: Path = ()
        for name in names[:-1]:
            table = self._latest((*table, name))
        table = (*table, names[-1])
        self.places.setdefault(table, (start, start))
        if brackets == 2:
            self._lengths[table] = self._lengths.get(table, 0) + 1
            table = self._latest(table)
            self.places.setdefault(table, (start, start))
        return table

    def _latest(self, table: Path) -> Path:
        """Return the path of the newest element if `table` is an array of tables, else `table`."""
        count = self._lengths.get(table, 0)
        return (*table, count - 1) if count else table

    def _pair(self, table: Path) -> None:
        start = self.offset
        path = table
        for name in self._key():
            path = (*path, name)
            self.places.setdefault(path, (start, start))
        self._next()
        self.offset += 1  # the "="
        self._next()
        self.places[path] = (start, self.offset)
        self._value(path)

    def _key(self) -> tuple[str, ...]:
        names = []
        while True:
            self._next()
            start = self.offset
            bare = _BARE_KEY.match(self.text, start)
            self._skip(_BARE_KEY if bare else _STRING)
            part = self.text[start : self.offset]
            names.append(part if bare else str(tomli.loads(f"key = {part}")["key"]))
            if self._next() != ".":
                return tuple(names)
            self.offset += 1

    def _value(self, path: Path) -> None:
        match self.text[self.offset]:
            case "[":
                self._inside(path, "]")
            case "{":
                self._inside(path, "}")
            case '"' | "'":
                self._skip(_STRING)
            case _:
                self._skip(_SCALAR)

    def _inside(self, path: Path, end: str) -> None:
        """Walk through the elements of an array, or the pairs of an inline table."""
        self.offset += 1
        index = 0
        while self._next() != end:
            if end == "}":
                self._pair(path)
            else:
                self.places.setdefault((*path, index), (self.offset, self.offset))
                self._value((*path, index))
                index += 1
            if self._next() == ",":
                self.offset += 1
        self.offset += 1

    def _skip(self, what: re.Pattern[str]) -> None:
        match = what.match(self.text, self.offset)
        # At least one character, so that the walk ends even if a text is not understood here.
        self.offset = match.end() if match and match.end() > self.offset else self.offset + 1
