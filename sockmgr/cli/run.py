"""`sockmgr run`: makes this process the manager, in the foreground."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import click

from sockmgr.cli import arguments, target
from sockmgr.cli.target import DEFAULT_CONFIG, duration, read_config


@click.command("run")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="The config file.")
@click.option("--control", metavar="PATH", help="Where to listen for the other verbs.")
@arguments.options
@click.option("--json", "as_json", is_flag=True, help="Write every line on stderr as JSON.")
@click.option("--timeout", type=duration, help="Give up if it does not serve after this time.")
@click.option("--check-state", type=int, hidden=True, help="Read the state in this descriptor.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(
    config: Path | None,
    control: str | None,
    listen: tuple[str, ...],
    name: str | None,
    as_json: bool,
    timeout: float | None,
    command: tuple[str, ...],
    **keys: Any,
) -> None:
    """Run the manager of a config file, or of one COMMAND.

    \b
    sockmgr run -c shop.toml
    sockmgr run --listen http=tcp://127.0.0.1:8000 --workers 4 -- uvicorn --fd '{http}' shop:app
    """
    state = keys.pop("check_state")
    given = {key: value for key, value in keys.items() if value}
    file = ""
    if command or listen:
        if config is not None:
            raise click.UsageError("give either a config file or a command, not both")
        if not command:
            raise click.UsageError("--listen needs a command: -- COMMAND [ARGUMENT]...")
        source = functools.partial(arguments.read, name, listen, command, given)
    elif given or name:
        raise click.UsageError("these options need a command: -- COMMAND [ARGUMENT]...")
    else:
        file = str(target.absolute(config or Path(DEFAULT_CONFIG)))
        source = functools.partial(read_config, Path(file))
    from sockmgr.manager import run
    from sockmgr.manager.takeover import predecessor

    if state is not None:
        click.echo(predecessor.check(state))
        return
    path = target.control(control)
    sys.exit(run.run(source, control=path, as_json=as_json, timeout=timeout, file=file))
