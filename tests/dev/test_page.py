"""The error page: complete, harmless whatever it shows, and bounded."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sockmgr.dev import page
from sockmgr.dev.failure import Failure, Frame
from sockmgr.dev.rules import Rules

OURS = Frame("/shop/views.py", 12, "index")
THEIRS = Frame("/lib/site-packages/flask.py", 7, "run")


def rendered(
    *frames: Frame, error: str = "KeyError: 'x'", output: tuple[str, ...] = (), source: str = "x"
) -> dict[str, Any]:
    failure = Failure(what="exited with status 1", error=error, frames=frames, output=output)
    subject = page.Subject(
        service="web",
        failure=failure,
        rules=Rules("/shop", ["/shop"]),
        context=lambda frame: [(frame.line, source)],
    )
    told: dict[str, Any] = json.loads(page.render(subject))
    return told


class Elements(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[tuple[str, tuple[str, ...]]] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_the_error_the_users_frames_first_and_the_libraries_folded() -> None:
    told = rendered(THEIRS, OURS)
    text = Elements(told["html"]).text
    assert text.index("KeyError") < text.index("views.py:12 in index") < text.index("flask.py:7")
    assert "exited with status 1" in text
    assert "<details>" in told["html"]


def test_without_frames_the_output_is_unfolded() -> None:
    told = rendered(error="", output=("listen tcp: bad", "panic"))
    assert "<details open>" in told["html"]
    assert "panic" in Elements(told["html"]).text
    assert "  panic\n" in told["text"]


def test_the_text_is_short_and_has_the_line_of_the_error() -> None:
    assert rendered(THEIRS, OURS, source="rows[0]")["text"] == (
        "web is broken: the worker exited with status 1\n"
        "KeyError: 'x'\n"
        "  views.py:12 index\n"
        "    rows[0]\n"
    )


def test_another_error_is_another_page() -> None:
    assert rendered(OURS)["id"] != rendered(OURS, error="ValueError")["id"]
    assert rendered(OURS)["id"] in rendered(OURS)["html"]


ANY = st.text(max_size=60)


@given(file=ANY, function=ANY, error=ANY, line=ANY, source=ANY)
def test_nothing_that_is_shown_becomes_an_element_or_controls_a_terminal(
    file: str, function: str, error: str, line: str, source: str
) -> None:
    frame = Frame(f"/shop/{file}", 1, function)
    told = rendered(frame, THEIRS, error=error, output=(line,), source=source)
    known = Elements(rendered(OURS, THEIRS, output=("x",))["html"]).tags
    assert Elements(told["html"]).tags <= known
    assert all(c.isprintable() or c == "\n" for c in told["text"])


def test_markup_is_shown_as_text() -> None:
    evil = "</pre><script>alert(1)</script>\x1b]0;x\x07"
    told = rendered(
        Frame(f"/shop/{evil}", 1, evil), Frame(evil, 1, evil), error=evil, output=(evil,),
        source=evil,
    )  # fmt: skip
    assert "<script>alert" not in told["html"]
    assert "alert(1)" in Elements(told["html"]).text


def test_the_page_is_bounded() -> None:
    wide = "\N{GRINNING FACE}" * 100_000
    frames = [Frame(f"/shop/{wide}", number, wide) for number in range(1000)]
    told = rendered(*frames, error=wide, output=(wide,) * 1000, source=wide)
    assert len(told["html"].encode()) < 4 * page.BYTES_MAX
    assert len(told["text"].encode()) < 4 * page.BYTES_MAX
