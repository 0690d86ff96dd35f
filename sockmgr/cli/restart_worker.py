"""`sockmgr restart-worker`: replaces one worker by another of its generation."""

from __future__ import annotations

import click

from sockmgr.cli import target


@click.command("restart-worker")
@click.argument("worker", metavar="SERVICE@GENERATION.SLOT", shell_complete=target.complete_worker)
@target.options
def command(where: target.Target, worker: str) -> None:
    """Replace one worker by another of its generation, and wait until that is done.

    The successor is ready before the old worker is stopped. The workers of a generation share a
    queue, so a server that stops without answering what it has accepted may lose a connection;
    `sockmgr reload` loses none.
    """
    successor = where.find().restart_worker(worker)
    done = f"{worker} is replaced by {successor}" if successor else f"{worker} has left"
    where.tell({"worker": worker, "successor": successor}, done)
