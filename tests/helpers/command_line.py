"""The command `sockmgr`, called in this process, in a place where no other manager is found."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sockmgr.cli import cli
from tests.helpers.fake_manager import FakeManager, serving

CONFIG = """
name = "shop-of-a-test"
[listen]
http = "tcp://127.0.0.1:0"
[service.web]
command = ["true", "{http}"]
listen = ["http"]
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the manager of a test listens: no other place is looked at."""
    found = tmp_path / "shop-of-a-test.sock"
    monkeypatch.setenv("SOCKMGR_CONTROL", str(found))
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def manager(path: Path) -> Iterator[FakeManager]:
    with serving(path) as found:
        yield found


# click keeps both streams apart by itself since 8.2.
_OLD = tuple(map(int, version("click").split(".")[:2])) < (8, 2)
_APART: dict[str, Any] = {"mix_stderr": False} if _OLD else {}


def sockmgr(*arguments: str) -> Result:
    result = CliRunner(**_APART).invoke(cli, arguments, prog_name="sockmgr")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def on_terminal(*arguments: str, code: int = 0, **environ: str) -> str:
    """Return what the command writes to a terminal; it must end with this exit code."""
    main, side = pty.openpty()
    command = [sys.executable, "-m", "sockmgr", *arguments]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120", **environ}
    with subprocess.Popen(command, stdout=side, stderr=side, env=env) as caller:
        os.close(side)
        said = b""
        while True:
            try:
                said += os.read(main, 4096)
            except OSError:  # EIO: the other side is closed, see pty(7)
                break
    os.close(main)
    assert caller.returncode == code
    return said.decode()
