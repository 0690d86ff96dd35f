"""Files of variables as a manager meets them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sockmgr.config.config import parse
from sockmgr.errors import ConfigError
from sockmgr.launch.surroundings import here


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 20)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, "it is no regular file"),
        (os.mkfifo, "it is no regular file"),
        (huge, "File too large"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.write_bytes(b"A=\xff"), r"\.env:1:3: a byte is not UTF-8"),
    ],
)
def test_a_file_that_is_none_of_variables_is_told_of(
    make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    make(tmp_path / ".env")
    text = '[service.web]\ncommand = ["server"]\nenv_file = ".env"\n'
    with pytest.raises(ConfigError, match=words):
        parse(text.encode(), file=str(tmp_path / "shop.toml"), outside=here())


def test_a_file_is_read_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    text = '[service.web]\ncommand = ["server"]\nenv_file = ".env"\n'
    found = parse(text.encode(), file=str(tmp_path / "shop.toml"), outside=here())
    assert found.services[0].env == (("A", "1"),)
