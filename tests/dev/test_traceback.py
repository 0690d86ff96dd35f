"""The error on a terminal: the user's frames, with the lines that there are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockmgr.dev.failure import Failure, Frame
from sockmgr.dev.rules import Rules
from sockmgr.dev.traceback import lines_around, render


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (1, [(1, "one")]),
        (4, [(4, "four"), (5, "five")]),
        (5, [(4, "four"), (5, "five")]),
        (6, [(4, "four"), (5, "five"), (6, "")]),
        (9, []),
    ],
)
def test_empty_lines_at_the_ends_are_not_shown(
    tmp_path: Path, line: int, shown: list[tuple[int, str]]
) -> None:
    file = tmp_path / "views.py"
    file.write_text("one\n\n\nfour\nfive\n\n\n")
    assert list(lines_around(Frame(str(file), line, ""))) == shown


def test_a_file_that_is_gone_or_no_file_has_no_lines(tmp_path: Path) -> None:
    assert lines_around(Frame(str(tmp_path / "gone.py"), 1, "")) == ()
    assert lines_around(Frame(str(tmp_path), 1, "")) == ()


@pytest.mark.parametrize("width", [20, 40, 100])
def test_at_any_width_the_line_of_the_error_is_marked(tmp_path: Path, width: int) -> None:
    file = tmp_path / "views.py"
    file.write_text("def f():\n    return 1 / 0\n")
    library = Frame("/usr/lib/python3.11/site-packages/flask/app.py", 1, "run")
    failure = Failure(
        what="exited with status 1",
        error="ZeroDivisionError: division by zero",
        frames=(library, Frame(str(file), 2, "f")),
        output=(),
    )
    told = render(failure, Rules(str(tmp_path), [str(tmp_path)]), width=width, lively=False)
    first, place, *source, last = told.splitlines()
    assert first == "ZeroDivisionError: division by zero"
    assert place == "  views.py:2 in f"
    assert any(line.startswith("❱ 2 ") and "return" in line for line in source)
    assert last == "  and 1 frame in flask"


@given(
    source=st.binary(max_size=200),
    suffix=st.sampled_from([".py", ".js", ".html", ".jinja2", ".c", ".\u202e", ""]),
    error=st.text(max_size=60),
    function=st.text(max_size=20),
)
def test_whatever_the_source_and_the_error_hold_nothing_controls_the_terminal(
    source: bytes, suffix: str, error: str, function: str
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, f"views{suffix}")
        file.write_bytes(source)
        failure = Failure(
            what="ended", error=error, frames=(Frame(str(file), 1, function),), output=()
        )
        told = render(failure, Rules(directory, [directory]), width=40, lively=False)
    assert all(c.isprintable() or c == "\n" for c in told)
