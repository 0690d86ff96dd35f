"""Lines and pieces of what programs print."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sockmgr.terminal.pieces import PIECE_MAX, Cutter, Piece, readable, whole
from sockmgr.terminal.visible import visible


def cut(*chunks: bytes) -> list[Piece]:
    cutter, found = Cutter(), list[Piece]()
    for chunk in chunks:
        cutter.feed(chunk)
        found += cutter.take(1 << 20)
        assert all(len(piece.text) <= PIECE_MAX for piece in cutter.unfinished)
    return found + cutter.unfinished


def test_a_long_line_is_in_marked_pieces_that_make_it_again() -> None:
    long = b"x" * 200_000
    pieces = cut(b"before\n" + long + b"\nafter\n")
    assert [piece.partial for piece in pieces] == [False, *[True] * 12, False, False]
    assert max(len(piece.text) for piece in pieces) == PIECE_MAX
    assert whole(pieces) == ["before", long.decode(), "after"]


def test_a_line_that_just_fits_is_one_piece() -> None:
    assert cut(b"x" * PIECE_MAX + b"\n") == [Piece("x" * PIECE_MAX)]
    assert [one.partial for one in cut(b"x" * (PIECE_MAX + 1) + b"\n")] == [True, False]


def test_no_character_is_split() -> None:
    for shift in range(5):
        text = "z" * (PIECE_MAX - shift) + "é✓🐍" * 10
        pieces = cut(text.encode() + b"\n")
        assert "".join(piece.text for piece in pieces) == text
        assert not any("\udc80" <= c <= "\udcff" for piece in pieces for c in piece.text)


@given(st.lists(st.binary() | st.sampled_from([b"\r", b"\n", b"\r\n", b"\xc3" * PIECE_MAX])))
def test_no_byte_is_lost_however_it_comes(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")[:-1]]
    last = data.split(b"\n")[-1]
    found = [line.encode(errors="surrogateescape") for line in whole(cut(*chunks))]
    assert found == [*lines, *([last] if last else [])]


def test_a_beginning_that_is_gone_is_marked() -> None:
    assert whole([Piece("tail"), Piece("next")], continued=True) == ["...tail", "next"]


def test_bytes_that_are_no_text_can_be_read() -> None:
    (piece,) = cut(b"caf\xe9 \xf0\x9f\x90\x8d\n")
    assert readable(piece.text) == "caf\\xe9 🐍"
    assert visible(piece.text) == "caf\\xe9 🐍"


def test_a_terminal_gets_colours_and_nothing_else_that_it_obeys() -> None:
    assert visible("plain ✓\tx") == "plain ✓\tx"
    assert visible("\x1b[31mred\x1b[0m") == "\x1b[31mred\x1b[0m\x1b[0m"
    assert visible("\x1b[31mred", colours=False) == "red"
    for text, shown in (
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("lie\rtruth", "lie\\rtruth"),
        ("\x1b[2J\x1b[1;1H", "\\x1b[2J\\x1b[1;1H"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ):
        assert visible(text) == shown


@given(st.lists(st.text("ab\n", max_size=20).map(str.encode)), st.integers(1, 3))
def test_what_is_skipped_is_counted_and_the_end_is_what_was_there(
    chunks: list[bytes], kept: int
) -> None:
    all_of_it, some = Cutter(), Cutter()
    for chunk in chunks:
        all_of_it.feed(chunk)
        some.feed(chunk)
    lines = all_of_it.take(1000)
    skipped = some.skip(kept)
    assert skipped == max(0, len(lines) - kept)
    assert some.take(1000) == lines[skipped:]
    assert some.unfinished == all_of_it.unfinished
