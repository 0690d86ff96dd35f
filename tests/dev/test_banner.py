"""The lines that tell what became of a save, at any width."""

from __future__ import annotations

import pytest

from sockmgr.dev import banner


def test_a_reload_is_one_line() -> None:
    text = banner.reloaded("web", 7, 8, 0.618)
    line = text + banner.files(["shop/views.py"], 80 - len(text))
    assert line == "web 7 → 8 in 0.62 s, shop/views.py"


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["shop/views.py"], ", shop/views.py"),
        (["shop/a.py", "shop/b.py"], ", shop/a.py +1"),
        (["shop/a/very/deep/directory.py"], ", …/directory.py"),
        (["shop/a/very/deep/directory.py", "b"], ", …/directory.py +1"),
        (["a-name-without-any-directory.py"], ", 1 file"),
        (["x" * 40] * 300, ", 300 files"),
        ([], ""),
    ],
)
def test_forty_columns_are_enough(paths: list[str], shown: str) -> None:
    text = banner.reloaded("web", 7, 8, 0.618)
    line = text + banner.files(paths, 40 - len(text))
    assert line == f"web 7 → 8 in 0.62 s{shown}"
    assert len(line) <= 40


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("tcp://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("tcp://0.0.0.0:80", "http://localhost:80"),
        ("tcp://[::]:80", "http://localhost:80"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
    ],
)
def test_an_address_is_shown_as_what_to_open(address: str, url: str) -> None:
    assert banner.url(address) == url
