"""`sockmgr top`: a live view of a manager, on the terminal."""

from __future__ import annotations

import os
import sys

import click

from sockmgr.cli import target
from sockmgr.client.client import Client

LOOK_TIMEOUT = 2.0  # seconds without an answer after which `top` reports that the manager hangs


@click.command("top")
@click.option("--once", is_flag=True, help="Print one view and end.")
@target.options
def command(where: target.Target, once: bool) -> None:
    """Show services, workers, queues and events live; reload, scale and restart with a key.

    CPU and memory are measured by this command, not by the manager.
    """
    if where.as_json:
        raise click.UsageError("top is for the eye; status and events have --json")
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if not (once or is_terminal):
        raise click.UsageError("top needs a terminal to draw on; --once prints what it would show")
    import asyncio

    from rich.console import Console

    from sockmgr.top.screen import frame
    from sockmgr.top.session import Looker, Top

    client = where.client()
    looker = Looker(Client(client.path, timeout=LOOK_TIMEOUT))
    view = looker.look()
    if not once:
        sys.exit(asyncio.run(Top(client, looker, view, sys.stdin.fileno()).run()))
    console = Console()
    for line in frame(view, console.width):
        console.print(line)
