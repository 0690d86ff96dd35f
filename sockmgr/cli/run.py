"""`sockmgr run`: be the manager, in the foreground."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sockmgr.cli.target import DEFAULT_CONFIG, Duration, read_config
from sockmgr.client import SOCKET_VARIABLE
from sockmgr.core.errors import ConfigError

if TYPE_CHECKING:
    from sockmgr.core.config import Config


@click.command("run")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="The config file.")
@click.option("--control", metavar="PATH", help="Where to listen for the other verbs.")
@click.option("--listen", multiple=True, metavar="NAME=URL", help="A listener; may be repeated.")
@click.option("--name", metavar="NAME", help="The name of this manager.")
@click.option("--workers", metavar="N", help="How many workers.")
@click.option("--cwd", metavar="DIR", help="Their working directory.")
@click.option("--env", multiple=True, metavar="KEY=VALUE", help="A variable; may be repeated.")
@click.option("--ready", metavar="HOW", help="accepting, notify or delay=SECONDS.")
@click.option("--ready-timeout", metavar="TIME", help="Until a worker must be ready.")
@click.option("--stop-signal", metavar="SIGNAL", help="What drains a worker.")
@click.option("--drain-timeout", metavar="TIME", help="Until a draining worker is killed.")
@click.option("--max-age", metavar="TIME", help="After which a worker is replaced.")
@click.option("--surge", metavar="N", help="Workers more than wanted in a rollout: all, 1, 25%.")
@click.option("--probation", metavar="TIME", help="How long a generation is on trial.")
@click.option("--json", "as_json", is_flag=True, help="Write every line on stderr as JSON.")
@click.option("--timeout", type=Duration(), help="Give up if it does not serve after this time.")
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
    """Run the manager: of a config file, or of one COMMAND.

    \b
    sockmgr run -c shop.toml
    sockmgr run --listen http=tcp://127.0.0.1:8000 --workers 4 -- uvicorn --fd '{http}' shop:app
    """
    state = keys.pop("check_state")
    given = {key: value for key, value in keys.items() if value}
    if command or listen:
        if config is not None:
            raise click.UsageError("give either a config file or a command, not both")
        if not command:
            raise click.UsageError("--listen needs a command: -- COMMAND [ARGUMENT]...")
        source = functools.partial(_from_arguments, name, listen, command, given)
    elif given or name:
        raise click.UsageError("these options need a command: -- COMMAND [ARGUMENT]...")
    else:
        source = functools.partial(read_config, (config or Path(DEFAULT_CONFIG)).absolute())
    from sockmgr import manager

    if state is not None:
        click.echo(manager.check_state(state))
        return
    given_path = control or os.environ.get(SOCKET_VARIABLE)
    path = Path(given_path) if given_path else None
    sys.exit(manager.run(source, control=path, as_json=as_json, timeout=timeout))


def _from_arguments(
    name: str | None, listen: tuple[str, ...], command: tuple[str, ...], keys: dict[str, Any]
) -> Config:
    from sockmgr.core.config import from_arguments

    values = {key: _value(key, keys[key]) for key in keys}
    return from_arguments(listen, command, name=name or "", keys=values)


def _value(key: str, text: Any) -> object:
    """Return what `text`, given on the command line, would be in a config file."""
    if key == "env":
        return dict(_pair(pair) for pair in text)
    if key == "ready" and text.startswith("delay="):
        return {"delay": _number(text.removeprefix("delay="))}
    return _number(text) if key not in ("cwd", "stop_signal") else text


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--env {text}: it has no value", do="write KEY=VALUE")
    return key, value
