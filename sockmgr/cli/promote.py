"""`sockmgr promote`: gives the canary under way everything, and waits for the verdict."""

from __future__ import annotations

import click

from sockmgr.cli import target
from sockmgr.cli.reload import carry_out


@click.command("promote")
@click.argument("service", default="", shell_complete=target.complete_service)
@target.options
def command(where: target.Target, service: str) -> None:
    """Give the canary of SERVICE all new connections now; it has proven itself.

    SERVICE may be left out if only one has a rollout under way. Exit code 1: there is no canary, or
    its rollout was aborted all the same.
    """
    client = where.find()
    carry_out(where, lambda _: client.promote(service))
