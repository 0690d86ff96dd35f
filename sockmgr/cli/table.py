"""Tables on stdout: drawn on a terminal, plain columns everywhere else."""

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
    """Print one table, or nothing if it has no rows."""
    if not rows:
        return
    if is_lively(sys.stdout):
        _draw(headers, rows)
        return
    click.echo()
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        click.echo(visible("  ".join(cells).rstrip(), colours=False))


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    number = _fitting([headers, *rows], console.width)
    for header in headers[:number]:
        table.add_column(header, no_wrap=True)
    for row in rows:
        # Text: names may hold [brackets]
        table.add_row(*(Text(visible(cell, colours=False)) for cell in row[:number]))
    console.print()
    console.print(table)


def _fitting(rows: Sequence[Sequence[str]], width: int) -> int:
    """Return how many columns fit into `width` without breaking a word; at least one."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ends = itertools.accumulate(widths, lambda end, next_one: end + 2 + next_one)
    return max(1, sum(end <= width for end in ends))
