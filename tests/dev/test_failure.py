"""The error in what a worker printed, as real programs print it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sockmgr.dev.failure import OUTPUT_MAX, Failure, Frame, read
from sockmgr.dev.rules import Rules


def failure_of(*argv: str, cwd: Path) -> Failure:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    return read((done.stdout + done.stderr).splitlines(), "exited")


def python(tmp_path: Path, code: str) -> Failure:
    (tmp_path / "app.py").write_text(code)
    return failure_of(sys.executable, "app.py", cwd=tmp_path)


def test_an_exception_has_its_frames_and_its_line(tmp_path: Path) -> None:
    failure = python(tmp_path, "def f():\n    return 1 / 0\n\nf()\n")
    app = str(tmp_path / "app.py")
    assert failure.error == "ZeroDivisionError: division by zero"
    assert failure.frames == (Frame(app, 4, "<module>"), Frame(app, 2, "f"))
    assert failure.files == (app,)


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    failure = python(tmp_path, "x = 1\ny = = 2\n")
    assert failure.error == "SyntaxError: invalid syntax"
    assert failure.frames[-1] == Frame(str(tmp_path / "app.py"), 2, "")


def test_of_a_chain_the_last_error_counts_and_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("raise KeyError('first')\n")
    failure = python(tmp_path, "try:\n    import other\nexcept KeyError:\n    raise ValueError\n")
    assert failure.error == "ValueError"
    assert {Path(file).name for file in failure.files} == {"app.py", "other.py"}


def test_an_exception_group_is_read(tmp_path: Path) -> None:
    failure = python(tmp_path, "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])\n")
    assert failure.error.startswith("ExceptionGroup: two")
    assert failure.frames == (Frame(str(tmp_path / "app.py"), 1, "<module>"),)


def test_a_message_of_several_lines_does_not_hide_the_error(tmp_path: Path) -> None:
    failure = python(tmp_path, "raise RuntimeError('one\\n  two\\nthree')\n")
    assert failure.error == "RuntimeError: one"


def test_the_error_is_found_behind_frames_that_were_repeated(tmp_path: Path) -> None:
    failure = python(tmp_path, "def f():\n    f()\n\nf()\n")
    assert failure.error.startswith("RecursionError: maximum recursion depth exceeded")


UVICORN = [sys.executable, "-m", "uvicorn", "--port", "0", "app:app"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import nonsense\n", "ModuleNotFoundError: No module named 'nonsense'"),
        ("x = (\n", "SyntaxError: '(' was never closed"),
        (
            "async def app(scope, receive, send):\n    raise OSError('in lifespan')\n",
            "OSError: in lifespan",
        ),
    ],
)
def test_what_uvicorn_prints_is_read(tmp_path: Path, code: str, error: str) -> None:
    (tmp_path / "app.py").write_text(code)
    failure = failure_of(*UVICORN, "--lifespan", "on", cwd=tmp_path)
    assert failure.error == error
    (ours,), others = failure.split(Rules(str(tmp_path), [str(tmp_path)]))
    assert ours.file == str(tmp_path / "app.py")
    assert len(others) >= 2


@pytest.mark.parametrize(
    ("code", "error", "line"),
    [
        ("\nthrow new TypeError('no')\n", "TypeError: no", 2),
        ("const x = ;\n", "SyntaxError: Unexpected token ';'", 1),
        ("require('./nonsense')\n", "Error: Cannot find module './nonsense'", 1),
    ],
)
def test_what_node_prints_is_read(tmp_path: Path, code: str, error: str, line: int) -> None:
    node = shutil.which("node")
    assert node, "node runs one of the examples"
    (tmp_path / "server.js").write_text(code)
    failure = failure_of(node, "server.js", cwd=tmp_path)
    assert failure.error == error
    assert Frame(str(tmp_path / "server.js"), line, "").line in [
        f.line for f in failure.frames if f.file == str(tmp_path / "server.js")
    ]


def test_colours_do_not_hide_anything() -> None:
    lines = [
        "\x1b[31mERROR\x1b[0m:    Traceback (most recent call last):",
        '  \x1b[35mFile\x1b[0m "/a/b.py", line 3, in \x1b[35m<module>\x1b[0m',
        "    1/0",
        "\x1b[1;31mZeroDivisionError\x1b[0m: \x1b[35mdivision by zero\x1b[0m",
    ]
    failure = read(lines, "exited")
    assert failure.error == "ZeroDivisionError: division by zero"
    assert failure.frames == (Frame("/a/b.py", 3, "<module>"),)


@pytest.mark.parametrize("lines", [[], ["no traceback here"], ['File "x'], ["\x00\x1b[" * 9]])
def test_what_is_not_known_is_kept_as_it_was_printed(lines: list[str]) -> None:
    failure = read(lines, "exited with status 3")
    assert (failure.error, failure.frames) == ("", ())
    assert failure.what == "exited with status 3"
    assert len(failure.output) == len(lines)


def test_endless_output_is_bounded() -> None:
    frame = '  File "/a.py", line 1, in f'
    failure = read([frame] * 10_000, "exited")
    assert len(failure.frames) <= OUTPUT_MAX
    assert len(json.dumps(failure.output)) < 10_000
