"""Run docs/start.md as it stands there: `python -m tests.start_page [--sockmgr PATH] [--systemd]`.

Needs only the standard library, bash, curl and uvicorn: it runs where sockmgr was installed, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[1] / "docs" / "start.md"
UNDER_SYSTEMD = "Under systemd"
TIMEOUT = 300.0

_PART = re.compile(r"^## (?P<heading>.+?)$|^```(?P<kind>sh|text)\n(?P<text>.*?)^```$", re.M | re.S)
_FIGURE = re.compile(r"\d[\d.:-]*")


class Block(NamedTuple):
    """Commands of the page, and lines that they print among others."""

    heading: str
    commands: str
    shown: Sequence[str]


def blocks(page: str) -> Iterator[Block]:
    """Yield what is in fences called sh, each with the fence called text that follows it."""
    parts = list(_PART.finditer(page))
    heading = ""
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        heading = part["heading"] or heading
        if part["kind"] == "sh":
            shown = after["text"] if after and after["kind"] == "text" else ""
            yield Block(heading, part["text"], shown.splitlines())


def missing(shown: Sequence[str], printed: str) -> str:
    """Return the first line that was not printed, or not after those before it; "" if all were."""
    lines = iter([_plain(line) for line in printed.splitlines()])
    return next((line for line in shown if not any(_plain(line) in each for each in lines)), "")


def _plain(line: str) -> str:
    """Return a line without what differs each time: figures, and the width of columns."""
    return " ".join(_FIGURE.sub("N", line).split())


def play(
    chosen: Sequence[Block], directory: Path, env: dict[str, str], timeout: float = TIMEOUT
) -> str:
    """Run the blocks one after the other in one shell; return what is wrong, or ""."""
    outputs = [directory / f"printed-{number}" for number in range(len(chosen))]
    script = "set -eu\n" + "".join(
        f"{{\n{block.commands}}} > {output} 2>&1\n"
        for block, output in zip(chosen, outputs, strict=True)
    )
    shell = subprocess.Popen(
        ["bash", "-c", script], cwd=directory, env=env, start_new_session=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        code = shell.wait(timeout)
        end = f"the commands ended with exit code {code}" if code else ""
    except subprocess.TimeoutExpired:
        end = f"the commands did not end within {timeout:g} s"
    with contextlib.suppress(ProcessLookupError):  # what is left running, if anything
        os.killpg(shell.pid, signal.SIGTERM)
    shell.wait()
    for block, output in zip(chosen, outputs, strict=True):
        printed = output.read_text() if output.exists() else ""
        print(f"--- {block.heading}\n{block.commands}\n{printed}", flush=True)
        if line := missing(block.shown, printed):
            return f"{block.heading}: not printed, or not in this order: {line.strip()}"
    return end


def main(argv: Sequence[str] | None = None) -> int:
    """Play the page in an empty directory; 0 only if it is true."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockmgr", default="sockmgr", help="the program; by default that in PATH")
    parser.add_argument("--systemd", action="store_true", help="and install the units; as root")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(argv)
    if not (program := shutil.which(options.sockmgr)):
        parser.error(f"there is no {options.sockmgr}")
    found = list(blocks(options.page.read_text()))
    chosen = [each for each in found if options.systemd or each.heading != UNDER_SYSTEMD]
    with tempfile.TemporaryDirectory(prefix="sockmgr-start-") as directory:
        path = f"{Path(program).absolute().parent}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | {"PATH": path, "XDG_RUNTIME_DIR": directory}
        wrong = play(chosen, Path(directory), env)
    print(wrong or "the page is true", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
