"""`sockmgr rollback`: brings back an earlier generation, and waits for the verdict."""

from __future__ import annotations

import click

from sockmgr.cli import target
from sockmgr.cli.reload import carry_out


@click.command("rollback")
@click.argument("service", default="", shell_complete=target.complete_service)
@click.option(
    "--to", type=click.IntRange(1), metavar="GENERATION", help="One of `sockmgr history`."
)
@target.options
def command(where: target.Target, service: str, to: int | None) -> None:
    """Bring back the generation of SERVICE that was committed before, as it was run then.

    Its directory, command and environment are those of then, the number of workers that of now. The
    next reload goes by the config again. Exit code 1: it was refused, or aborted; then the workers
    from before go on serving.
    """
    client = where.find()
    carry_out(where, lambda on_progress: client.rollback(service, to, on_progress))
