"""`sockmgr scale`: has the manager run more workers of a service, or fewer."""

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
def command(where: target.Target, service: str, workers: str) -> None:
    """Run N workers of SERVICE, or N more, or N fewer."""
    if not re.fullmatch(r"[+-]?\d{1,6}", workers, re.ASCII):
        raise click.UsageError(f"{workers} is no number of workers: write 4, +1 or -1")
    wanted = where.find().scale(service, int(workers), relative=workers[0] in "+-")
    done = f"{service}: {count(wanted, 'worker')} wanted"
    where.tell({"service": service, "workers": wanted}, done)
