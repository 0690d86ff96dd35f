"""`sockmgr promote`, `abort` and `rollback`: decide which generation serves, and wait for that."""

from __future__ import annotations

import click

from sockmgr.cli import target
from sockmgr.cli.reload import carry_out


@click.command("promote")
@click.argument("service", default="", shell_complete=target.complete_service)
@target.options
def promote(where: target.Target, service: str) -> None:
    """Give the canary of SERVICE all new connections now; it has proven itself.

    SERVICE may be left out if only one has a rollout under way. Exit code 1: there is no canary, or
    its rollout was aborted all the same.
    """
    client = where.find()
    carry_out(where, lambda _: client.promote(service))


@click.command("abort")
@click.argument("service", default="", shell_complete=target.complete_service)
@click.option("--reason", default="", metavar="TEXT", help="Why: it is in the verdict.")
@target.options
def abort(where: target.Target, service: str, reason: str) -> None:
    """Take back the rollout of SERVICE that is under way, by a canary or not.

    SERVICE may be left out if only one has a rollout under way. Exit code 1: there is none, or it
    has been committed all the same.
    """
    client = where.find()
    carry_out(where, lambda _: client.abort(service, reason), wanted="aborted")


@click.command("rollback")
@click.argument("service", default="", shell_complete=target.complete_service)
@click.option(
    "--to", type=click.IntRange(1), metavar="GENERATION", help="One of `sockmgr history`."
)
@target.options
def rollback(where: target.Target, service: str, to: int | None) -> None:
    """Bring back the generation of SERVICE that was committed before, as it was run then.

    Its directory, command and environment are those of then, the number of workers that of now. The
    next reload goes by the config again. Exit code 1: it was refused, or aborted; then the workers
    from before go on serving.
    """
    client = where.find()
    carry_out(where, lambda on_progress: client.rollback(service, to, on_progress))
