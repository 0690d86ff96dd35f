"""`sockmgr restart-worker`: replace one worker by another of its generation."""

from __future__ import annotations

import json

import click

from sockmgr.cli import streams, target


@click.command("restart-worker")
@click.argument("worker", metavar="SERVICE@GENERATION.SLOT", shell_complete=target.complete_worker)
@target.options
def command(where: target.Target, worker: str) -> None:
    """Replace one worker by another that runs the same; wait until that is done.

    The successor is ready before the old one is told to stop. Other workers accept from the same
    queue meanwhile, so with some servers a connection may be lost: `sockmgr reload` loses none.
    """
    successor = where.find().restart_worker(worker)
    if where.as_json:
        click.echo(json.dumps({"worker": worker, "successor": successor}))
    else:
        streams.tell(f"{worker} is replaced by {successor}" if successor else f"{worker} has left")
