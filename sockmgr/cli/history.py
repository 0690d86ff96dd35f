"""`sockmgr history`: lists the generations that a service has had."""

from __future__ import annotations

import time

import click
import msgspec

from sockmgr.api.varlink import PastGeneration
from sockmgr.cli import target
from sockmgr.cli.table import show
from sockmgr.terminal.format import age


@click.command("history")
@click.argument("service", default="", shell_complete=target.complete_service)
@target.options
def command(where: target.Target, service: str) -> None:
    """List the generations of SERVICE, or of all, as far as the manager remembers them.

    A > stands before the one that serves, a * before those that `sockmgr rollback --to` can bring
    back.
    """
    generations = where.client().history(service)
    if where.as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(generations)))
        return
    show(
        ("", "GENERATION", "BEGAN", "SERVED", "VERDICT", "RELEASE", "CAME BY", "DIRECTORY", "WHY"),
        [_row(each) for each in generations],
    )


def _row(one: PastGeneration) -> tuple[str, ...]:
    came = f"rollback to {one.rollback}" if one.rollback else one.origin or "-"
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.began))
    return (
        ">" if one.serves else "*" if one.kept else "",
        f"{one.service}@{one.generation}",
        began,
        "-" if one.served is None else age(one.served),
        one.verdict or "-",
        one.release or "-",
        f"{came} by {one.by}" if one.by else came,
        one.directory,
        one.reason,
    )
