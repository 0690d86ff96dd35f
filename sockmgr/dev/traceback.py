"""Draws a failure for a terminal: the error, then the user's frames with their lines.

Called in a thread, because the first call imports rich and pygments, which takes a while.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from sockmgr.dev.failure import Failure, Frame, printable
from sockmgr.dev.rules import Rules
from sockmgr.terminal.format import count

if TYPE_CHECKING:
    from rich.console import Console

AROUND = 2  # lines of source shown before the line of a frame, and after it
FRAMES_SHOWN = 6
SOURCE_MAX = 1 << 20  # bytes; no lines of a larger file are shown
_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|python3\.\d+)/([^/.]+)|<frozen (\w+)")


def lines_around(frame: Frame) -> Sequence[tuple[int, str]]:
    """Return the numbered lines around the line of a frame, without blank lines at the ends.

    Returns () if the source cannot be read.
    """
    path = Path(frame.file)
    try:
        if not path.is_file() or path.stat().st_size > SOURCE_MAX:
            return ()
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    if frame.line > len(lines):  # the file has been edited since
        return ()
    first, last = max(1, frame.line - AROUND), min(len(lines), frame.line + AROUND)
    while first < frame.line and not lines[first - 1].strip():
        first += 1
    while last > frame.line and not lines[last - 1].strip():
        last -= 1
    return tuple(enumerate(lines[first - 1 : last], first))


def render(failure: Failure, rules: Rules, *, width: int, lively: bool) -> str:
    """Return the text to show; `rules` tell the user's files."""
    from rich.console import Console  # noqa: PLC0415 - `dev` may never need it
    from rich.text import Text  # noqa: PLC0415

    console = Console(
        file=StringIO(),
        width=width,
        force_terminal=lively,
        no_color=not lively,
        color_system="standard" if lively else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    ours, others = failure.split(rules)
    with console.capture() as captured:
        # soft_wrap: the terminal breaks a long line, so that it can still be copied as one.
        error = Text(printable(failure.error or f"it {failure.what}"), style="bold red")
        console.print(error, soft_wrap=True)
        for frame in ours[:FRAMES_SHOWN]:
            _show(console, frame, rules)
        if others:
            names = ", ".join(dict.fromkeys(_library(frame.file) for frame in others))
            text = f"  and {count(len(others), 'frame')} in {printable(names)}"
            console.print(Text(text, style="dim"), soft_wrap=True)
    return captured.get()


def _show(console: Console, frame: Frame, rules: Rules) -> None:
    from rich.syntax import Syntax  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    place = Text(f"  {printable(rules.shown(frame.file))}:{frame.line}", style="bold")
    if frame.function:
        place.append(f" in {printable(frame.function)}", style="not bold")
    console.print(place, soft_wrap=True)
    source = lines_around(frame)
    if source:
        code = "\n".join(printable(text) for _, text in source)
        console.print(
            Syntax(
                code,
                Syntax.guess_lexer(frame.file, code),
                theme="ansi_dark",
                line_numbers=True,
                start_line=source[0][0],
                highlight_lines={frame.line},
                background_color="default",
                word_wrap=True,
            )
        )


def _library(file: str) -> str:
    found = _LIBRARY.match(file)
    return (found[1] or found[2]) if found else Path(file).name
