"""`sockmgr abort`: takes back the rollout under way, and waits for the verdict."""

from __future__ import annotations

import click

from sockmgr.cli import target
from sockmgr.cli.reload import carry_out


@click.command("abort")
@click.argument("service", default="", shell_complete=target.complete_service)
@click.option("--reason", default="", metavar="TEXT", help="Why: it is in the verdict.")
@target.options
def command(where: target.Target, service: str, reason: str) -> None:
    """Take back the rollout of SERVICE that is under way, by a canary or not.

    SERVICE may be left out if only one has a rollout under way. Exit code 1: there is none, or it
    has been committed all the same.
    """
    client = where.find()
    carry_out(where, lambda _: client.abort(service, reason), wanted="aborted")
