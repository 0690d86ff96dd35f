"""Tables on stdout: drawn on a terminal, plain columns everywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click


def is_lively(stream: TextIO) -> bool:
    """Tell whether `stream` is a terminal that may get more than plain text."""
    # https://no-color.org: present and not empty
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table, or nothing if it would be empty."""
    if not rows:
        return
    if is_lively(sys.stdout):
        _draw(headers, rows)
        return
    click.echo()
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: names may hold [brackets]
    console = Console()
    console.print()
    console.print(table)
