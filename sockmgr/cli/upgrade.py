"""`sockmgr upgrade`: has the manager replace its own code, and waits until the new code answers."""

from __future__ import annotations

import json

import click

from sockmgr.cli import streams, target


@click.command("upgrade")
@target.options
def command(where: target.Target) -> None:
    """Replace the manager's code in place: same pid, same workers, nothing lost.

    The new code must first read the state of the running manager; if it cannot, nothing changes.
    """
    client = where.find()
    target.narrate(f"upgrading the manager at {client.path}")
    before = client.upgrade()
    after = client.status().manager
    if where.as_json:
        click.echo(json.dumps({"pid": after.pid, "before": before, "version": after.version}))
    else:
        streams.echo(f"sockmgr {before} became {after.version}: pid {after.pid}, nothing restarted")
