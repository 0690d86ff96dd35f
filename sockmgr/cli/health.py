"""`sockmgr health`: whether what a manager runs serves, for probes. client/health answers most."""

from __future__ import annotations

import sys

import click

from sockmgr.cli import target
from sockmgr.client.health import PATIENCE, ask
from sockmgr.errors import SockmgrError


@click.command("health")
@click.argument("service", required=False, shell_complete=target.complete_service)
@click.option(
    "--ready", is_flag=True, help="Whether new traffic may come: not if it is to stop, say."
)
@target.options
def command(where: target.Target, service: str | None, ready: bool) -> None:
    """Tell in one line, and by the exit code, whether a service (or each) serves.

    The exit code is 0 or 1, and 1 also if no manager answers.
    """
    try:
        control = str(where.client().path)
    except SockmgrError as error:
        healthy, line = False, error.what
    else:
        healthy, line = ask(control, service, ready=ready, timeout=where.timeout or PATIENCE)
    where.tell({"healthy": healthy, "line": line}, line)
    sys.exit(0 if healthy else 1)
