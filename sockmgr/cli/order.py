"""`sockmgr scale`, `restart-worker`, `stop` and `upgrade`: orders to a manager that end soon."""

from __future__ import annotations

import re

import click

from sockmgr.cli import target
from sockmgr.terminal.format import count


# Without ignore_unknown_options, click would take -1 for an option.
@click.command("scale", context_settings={"ignore_unknown_options": True})
@click.argument("service", shell_complete=target.complete_service)
@click.argument("workers", metavar="N|+N|-N")
@target.options
def scale(where: target.Target, service: str, workers: str) -> None:
    """Run N workers of SERVICE, or N more, or N fewer."""
    if not re.fullmatch(r"[+-]?\d{1,6}", workers, re.ASCII):
        raise click.UsageError(f"{workers} is no number of workers: write 4, +1 or -1")
    wanted = where.find().scale(service, int(workers), relative=workers[0] in "+-")
    done = f"{service}: {count(wanted, 'worker')} wanted"
    where.tell({"service": service, "workers": wanted}, done)


@click.command("restart-worker")
@click.argument("worker", metavar="SERVICE@GENERATION.SLOT", shell_complete=target.complete_worker)
@target.options
def restart_worker(where: target.Target, worker: str) -> None:
    """Replace one worker by another of its generation, and wait until that is done.

    The successor is ready before the old worker is stopped. The workers of a generation share a
    queue, so a server that stops without answering what it has accepted may lose a connection;
    `sockmgr reload` loses none.
    """
    successor = where.find().restart_worker(worker)
    done = f"{worker} is replaced by {successor}" if successor else f"{worker} has left"
    where.tell({"worker": worker, "successor": successor}, done)


@click.command("stop")
@click.option("--now", is_flag=True, help="Kill the workers instead of draining them.")
@target.options
def stop(where: target.Target, now: bool) -> None:
    """Drain all workers and stop the manager."""
    client = where.find()
    target.narrate(f"stopping the manager at {client.path}")
    client.stop(now=now)
    where.tell({"stopped": True}, "stopped: no worker is left")


@click.command("upgrade")
@target.options
def upgrade(where: target.Target) -> None:
    """Replace the manager's code in place: same pid, same workers, nothing lost.

    The new code must first read the state of the running manager; if it cannot, nothing changes.
    """
    client = where.find()
    target.narrate(f"upgrading the manager at {client.path}")
    before = client.upgrade()
    after = client.status().manager
    done = f"sockmgr {before} became {after.version}: pid {after.pid}, nothing restarted"
    where.tell({"pid": after.pid, "before": before, "version": after.version}, done)
