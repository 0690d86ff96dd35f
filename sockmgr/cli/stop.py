"""`sockmgr stop`: ends the manager and waits until no worker is left."""

from __future__ import annotations

import click

from sockmgr.cli import target


@click.command("stop")
@click.option("--now", is_flag=True, help="Kill the workers instead of draining them.")
@target.options
def command(where: target.Target, now: bool) -> None:
    """Drain all workers and stop the manager."""
    client = where.find()
    target.narrate(f"stopping the manager at {client.path}")
    client.stop(now=now)
    where.tell({"stopped": True}, "stopped: no worker is left")
