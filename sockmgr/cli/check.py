"""`sockmgr check`: is the config usable, and what would a reload change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from sockmgr.cli import target
from sockmgr.client import Client, NoManagerError, find_control
from sockmgr.core.config import Config
from sockmgr.core.errors import ConfigError, SockmgrError
from sockmgr.resolve import resolve, warnings


@click.command("check")
@target.options
def command(where: target.Target) -> None:
    """Check the config, and show what a running manager would change."""
    path = where.config or Path(target.DEFAULT_CONFIG)
    config = target.read_config(path)
    flaws = _resolve(config)
    changes = _plan(where, config.name)
    if where.as_json:
        click.echo(json.dumps({"valid": True, "warnings": flaws, "plan": changes}))
        return
    counts = f"{len(config.listen)} listeners, {len(config.services)} services"
    click.echo(f"{path} is valid: {counts}")
    for flaw in flaws:
        click.echo(f"  warning: {flaw}")
    for change in changes or ():
        click.echo(f"  {change}")
    if changes is None:
        target.narrate("no manager of that name is running")
    elif not changes:
        target.narrate("a reload would change nothing")


def _resolve(config: Config) -> list[str]:
    flaws: list[str] = []
    for service in config.services:
        try:
            resolve(service, config.listens(), os.environ)
            flaws += warnings(service, os.environ)
        except ConfigError:
            raise
        except SockmgrError as error:  # a program that is not there is an error of the config here
            raise ConfigError(error.what, means=error.means, do=error.do) from error
    return flaws


def _plan(where: target.Target, name: str) -> list[str] | None:
    try:
        return Client(find_control(where.control, name), timeout=where.timeout).plan()
    except NoManagerError:
        return None
