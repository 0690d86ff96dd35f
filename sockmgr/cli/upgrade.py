"""`sockmgr upgrade`: has the manager replace its own code, and waits until the new code answers."""

from __future__ import annotations

import click

from sockmgr.cli import target


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
    done = f"sockmgr {before} became {after.version}: pid {after.pid}, nothing restarted"
    where.tell({"pid": after.pid, "before": before, "version": after.version}, done)
