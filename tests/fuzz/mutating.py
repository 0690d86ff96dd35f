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
_WORD = re.compile(rb"\d+(?:\.\d+)?|\w+|[^\w\s]")
_Edit = Callable[[random.Random, bytes, int, int], bytes]


def _replaced(draw: random.Random, data: bytes, _: int, __: int) -> bytes:
    """Put what hurts in the place of one word or sign."""
    words = list(_WORD.finditer(data))
    if not words:
        return draw.choice(_HURTS)
    word = draw.choice(words)
    return data[: word.start()] + draw.choice(_HURTS) + data[word.end() :]


_EDITS: tuple[_Edit, ...] = (
    lambda draw, data, at, _: data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :],
    lambda _, data, at, end: data[:at] + data[end:],
    lambda _, data, at, end: data[:end] + data[at:end] + data[end:],
    lambda draw, data, at, end: data[:at] + data[at:end] * draw.randrange(1, 30) + data[end:],
    lambda draw, data, at, _: data[:at] + draw.choice(_HURTS) + data[at:],
    _replaced,
    _replaced,
)


def mutated(draw: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Return an input that was never there, of at most LONGEST bytes."""
    for _ in range(draw.randrange(1, 5)):
        at, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        if others and draw.random() < 0.2:
            other = draw.choice(others)
            start, stop = sorted(draw.randrange(len(other) + 1) for _ in range(2))
            data = data[:at] + other[start:stop] + data[end:]
        else:
            data = draw.choice(_EDITS)(draw, data, at, end)
        data = data[:LONGEST]
    return data
