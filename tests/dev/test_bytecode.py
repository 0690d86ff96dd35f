"""Bytecode of an edited source, made by Python itself."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from sockmgr.dev import bytecode


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "version[1].py"
    file.write_text("print(1)\n")
    os.utime(file, (1e9, 1e9))
    py_compile.compile(str(file), doraise=True)
    return file


def run(source: Path) -> str:
    program = f"import importlib; importlib.import_module({source.stem!r})"
    argv = [sys.executable, "-c", program]
    return subprocess.run(argv, cwd=source.parent, capture_output=True, text=True).stdout  # noqa: PLW1510


def edit(source: Path, text: str, second: float) -> None:
    source.write_text(text)
    os.utime(source, (second, second))


def test_an_edit_in_the_same_second_and_of_the_same_size_is_run(source: Path) -> None:
    edit(source, "print(2)\n", 1e9 + 0.5)
    assert run(source) == "1\n"  # or this module would not be needed
    assert len(bytecode.forget([str(source)])) == 1
    assert run(source) == "2\n"


def test_what_has_no_bytecode_and_what_is_gone_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "a.py").touch()
    paths = [str(tmp_path / name) for name in ("a.py", "gone.py", "page.html")]
    assert bytecode.forget(paths) == []


def test_a_directory_of_its_own_for_bytecode_is_known(tmp_path: Path) -> None:
    source, prefix = tmp_path / "a.py", tmp_path / "cache"
    source.write_text("print(1)\n")
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(prefix), "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, "-c", "import a"], cwd=tmp_path, env=env, check=True)
    compiled = list(prefix.rglob("a.*.pyc"))
    assert len(compiled) == 1
    assert bytecode.forget([str(source)], str(prefix)) == compiled
