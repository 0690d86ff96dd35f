"""Find the Python that runs a server, and the version of the server there. Runs nothing."""

from __future__ import annotations

import re
from pathlib import Path

from sockmgr.kernel.regular import first_bytes, interpreter
from sockmgr.launch.call import Call
from sockmgr.launch.launchers import PYTHON
from sockmgr.launch.situation import Situation

# The second line of a script of pip or uv whose interpreter has too long a path for a `#!` line;
# then that is `#!/bin/sh`.
_EXEC = re.compile(r"'''exec' \"?([^\"]+?)\"? \"\$0\"")


def python_of(call: Call, situation: Situation) -> str:
    """Return the interpreter that runs the server, as a word for argv; "" if it is not known."""
    launch = call.launch
    if launch.python:
        return launch.python
    if launch.chosen:  # behind `uv run` it is the one of the project; uvx has no project
        return "" if {"uvx", "tool", "npx"}.intersection(launch.before) else "python"
    return shebang(situation.find(launch.program))


def shebang(script: str | None) -> str:
    """Return the Python that a script of pip or uv runs in; "" if its first lines name none."""
    try:
        found = interpreter(script or "")[:1]
        second = first_bytes(script or "", 4096).decode(errors="surrogateescape").splitlines()[1:2]
    except OSError:
        return ""
    found += [match[1] for line in second if (match := _EXEC.match(line))]
    return next((path for path in found if PYTHON.fullmatch(Path(path).name)), "")


def version(call: Call, situation: Situation) -> tuple[int, ...]:
    """Return the oldest version of the server that its interpreter has, () if none is found.

    Read from the names of the installed metadata: to ask the server would take a whole start.
    """
    if call.launch.elsewhere:
        return ()
    if call.launch.chosen and not call.launch.python:
        home = Path(situation.cwd, ".venv")
    else:
        python = situation.find(python_of(call, situation) or "python")
        home = Path(python or "").parent.parent
    found = [
        tuple(int(number) for number in re.findall(r"\d+", entry.name.split("-")[1])[:3])
        for folder in ("site-packages", "dist-packages")
        for entry in home.glob(f"lib/python3*/{folder}/{call.name}-*-info")
    ]
    return min(found, default=())
