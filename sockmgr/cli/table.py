"""Tables on stdout, in plain columns."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click

from sockmgr.terminal.visible import visible


def is_lively(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal that may get more than plain text."""
    # no-color.org: NO_COLOR counts if it is set and not empty.
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table, or nothing if it has no rows; a terminal gets the columns that fit."""
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lively = is_lively(sys.stdout)
    if lively:
        import shutil

        ends = itertools.accumulate(widths, lambda end, following: end + 2 + following)
        fitting = sum(end <= shutil.get_terminal_size().columns for end in ends)
        widths = widths[: max(1, fitting)]
    click.echo()
    for row in (headers, *rows):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=False))
        line = visible("  ".join(cells).rstrip(), colours=False)
        click.echo(click.style(line, bold=True) if lively and row is headers else line)
