"""Makes an input out of others: cuts, copies, joins, and what often hurts."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

LONGEST = 4096  # bytes
_HURTS = (
    b"", b"\0", b"\xff", b"\n", b" ", b"-1", b"0", b"1e999", b"9" * 400, b"18446744073709551616",
    b"null",
    b"{", b"[" * 200, b"]", b'"', b"'", b"\\", b"$(", b"${A:-", b"#", b"=", b"%", b"\xed\xa0\x80",
    b"\xe2\x80\xa8", b"\x1b[31m", b"../", b"nan", b"true", b",", b":", b"@",
)  # fmt: skip
_NUMBERS = (b"-1", b"0", b"1", b"2.5", b"1e999", b"65536", b"4294967295", b"18446744073709551616")
_NUMBER = re.compile(rb"\d+(?:\.\d+)?")
_NAME = re.compile(rb"[^\W\d]\w*")
_WORD = re.compile(rb"\d+(?:\.\d+)?|\w+|[^\w\s]")
_Edit = Callable[[random.Random, bytes, int, int], bytes]


def _replaced(draw: random.Random, data: bytes, at: int, _: int) -> bytes:
    """Put what hurts in the place of one word or sign."""
    word = _WORD.search(data, at)
    start, end = word.span() if word else (at, at)
    return data[:start] + draw.choice(_HURTS) + data[end:]


def _swapped(_: random.Random, data: bytes, at: int, end: int) -> bytes:
    """Put a name in the place of another."""
    found, other = _NAME.search(data, at), _NAME.search(data, end)
    return data[: found.start()] + other[0] + data[found.end() :] if found and other else data


def _renumbered(draw: random.Random, data: bytes, at: int, end: int) -> bytes:
    """Put a number in the place of another, one of the input or one that often hurts."""
    found, other = _NUMBER.search(data, at), _NUMBER.search(data, end)
    if not found:
        return data
    number = other[0] if other and draw.random() < 0.5 else draw.choice(_NUMBERS)
    return data[: found.start()] + number + data[found.end() :]


_EDITS: tuple[_Edit, ...] = (
    lambda draw, data, at, _: data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :],
    lambda _, data, at, end: data[:at] + data[end:],
    lambda _, data, at, end: data[:end] + data[at:end] + data[end:],
    lambda draw, data, at, end: data[:at] + data[at:end] * draw.randrange(1, 30) + data[end:],
    lambda draw, data, at, _: data[:at] + draw.choice(_HURTS) + data[at:],
    _replaced,
    _replaced,
    _swapped,
    _renumbered,
)
_GENTLE: tuple[_Edit, ...] = (_swapped, _renumbered, _renumbered)  # a parser takes most of them


def mutated(draw: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Return an input that was never there, of LONGEST bytes or those of `data` at most."""
    longest, is_gentle = max(LONGEST, len(data)), draw.random() < 0.4
    for _ in range(draw.randrange(1, 5)):
        at, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        if is_gentle:
            data = draw.choice(_GENTLE)(draw, data, at, end)
        elif others and draw.random() < 0.2:
            other = draw.choice(others)
            start, stop = sorted(draw.randrange(len(other) + 1) for _ in range(2))
            data = data[:at] + other[start:stop] + data[end:]
        else:
            data = draw.choice(_EDITS)(draw, data, at, end)
        data = data[:longest]
    return data
