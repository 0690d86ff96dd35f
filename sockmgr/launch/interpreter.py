"""Which Python runs a server, and which version of the server that Python has. Runs nothing."""

from __future__ import annotations

import re
from pathlib import Path

from sockmgr.kernel.regular import first_bytes
from sockmgr.launch.call import Call
from sockmgr.launch.launchers import PYTHON
from sockmgr.launch.situation import Situation


def python_of(call: Call, situation: Situation) -> str:
    """Return the interpreter that runs the server, as a word for argv; "" if it is not clear."""
    launch = call.launch
    if launch.python:
        return launch.python
    if launch.chosen:  # the launcher finds the one of the project; but uvx has no project
        return "" if {"uvx", "tool", "npx"}.intersection(launch.before) else "python"
    return shebang(situation.find(launch.program))


def shebang(script: str | None) -> str:
    """Return the Python that a script names in its first lines; "" if it names none."""
    try:
        lines = first_bytes(script or "", 4096).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    # pip and uv write the second form when the path is too long for the kernel.
    for line, form in zip(
        lines, (r"#!\s*(\S+)", r"'''exec' \"?([^\"]+?)\"? \"\$0\""), strict=False
    ):
        match = re.match(form, line)
        if match and PYTHON.fullmatch(Path(match[1]).name):
            return match[1]
    return ""


def version(call: Call, situation: Situation) -> tuple[int, ...]:
    """Return the oldest version of the server beside its interpreter, () if none is found.

    Read from the names of the installed metadata: to ask the program itself takes a whole start.
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
