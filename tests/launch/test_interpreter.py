"""The Python that a script of pip or uv runs in."""

from __future__ import annotations

from pathlib import Path

import pytest

from sockmgr.launch.interpreter import shebang


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("#!/srv/.venv/bin/python3.12\nimport x\n", "/srv/.venv/bin/python3.12"),
        ("#! /usr/bin/python3 -I\n", "/usr/bin/python3"),
        # What pip writes where the path is too long for the kernel.
        ("#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''\n", "/a b/bin/python"),
        ("#!/bin/sh\n'''exec' /long/bin/python3 \"$0\" \"$@\"\n' '''\n", "/long/bin/python3"),
        ("#!/bin/sh\nexec python3 x\n", ""),
        ("import x\n", ""),
        ("", ""),
    ],
)
def test_a_script_names_its_python_in_its_first_lines(
    text: str, python: str, tmp_path: Path
) -> None:
    script = tmp_path / "server"
    script.write_text(text)
    assert shebang(str(script)) == python


def test_no_script_names_none(tmp_path: Path) -> None:
    assert shebang(None) == shebang(str(tmp_path)) == shebang(str(tmp_path / "gone")) == ""
