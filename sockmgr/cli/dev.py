"""`sockmgr dev`: makes this process the manager of a developer, in the foreground."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sockmgr.cli import arguments, target
from sockmgr.cli.table import is_lively
from sockmgr.cli.target import DEFAULT_CONFIG, read_config
from sockmgr.errors import ConfigError

if TYPE_CHECKING:
    from sockmgr.config.config import Config

LISTEN = "http=tcp://127.0.0.1:8000"
_APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(?:\(\))?")


@click.command("dev")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="The config file.")
@click.option("--control", metavar="PATH", help="Where to listen for the other verbs.")
@arguments.options
@click.option("--livereload", is_flag=True, help="Let pages in the browser reload themselves.")
@click.option("--verbose", is_flag=True, help="Show every record of the manager's log.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[APP | COMMAND...]")
def command(
    config: Path | None,
    control: str | None,
    listen: tuple[str, ...],
    name: str | None,
    livereload: bool,
    verbose: bool,
    command: tuple[str, ...],
    **keys: Any,
) -> None:
    """Run a server for development: save a file, and the new code serves.

    \b
    sockmgr dev shop.main:app
    sockmgr dev -c sockmgr.toml
    sockmgr dev --listen http=tcp://127.0.0.1:8000 -- uvicorn --fd '{http}' shop.main:app

    APP is an ASGI or WSGI application, which uvicorn serves. A known server needs no --listen: it
    gets 127.0.0.1:8000. Ctrl-C drains and ends; a second Ctrl-C ends at once.
    """
    from sockmgr.init import declared

    given = {key: value for key, value in keys.items() if value}
    file = "" if command else str(target.absolute(config or Path(DEFAULT_CONFIG)))
    if command and config is not None:
        raise click.UsageError("give either a config file or a command, not both")
    if not command and (listen or given or name):
        raise click.UsageError("these options need an APP or a COMMAND")
    if command:
        # By default that of the directory, so that several can run beside one another.
        name = name or declared.name({}, Path.cwd().name)
        source = functools.partial(_from_arguments, name, listen, command, given)
    else:
        source = functools.partial(read_config, Path(file))
    if livereload:
        source = functools.partial(_with_livereload, source)
    sys.exit(_run(source, control, file, typed=tuple(given), verbose=verbose))


def _run(
    read: Callable[[], Config],
    control: str | None,
    file: str,
    *,
    typed: tuple[str, ...],
    verbose: bool,
) -> int:
    from sockmgr.dev.lifeline import Lifeline
    from sockmgr.dev.livereload import LiveReload
    from sockmgr.dev.project import Project
    from sockmgr.dev.screen import Screen
    from sockmgr.dev.session import Session
    from sockmgr.manager import run

    path = target.control(control)
    cwd = str(Path.cwd())
    project = Project(base=str(Path(file).parent) if file else cwd, cwd=cwd, file=file)
    lively = is_lively(sys.stderr)
    terminal = sys.stdin.fileno() if lively and sys.stdin.isatty() else None
    lifeline, livereload = Lifeline(), LiveReload()
    try:
        screen = Screen(lively=lively, verbose=verbose)
        session = Session(
            read, project, screen, lifeline, livereload, typed=typed, terminal=terminal
        )
        return run.run(session.source, control=path, companion=session, file=file)
    finally:
        livereload.close()
        lifeline.dismiss()


def _with_livereload(read: Callable[[], Config]) -> Config:
    from msgspec.structs import replace

    config = read()
    return replace(config, dev=replace(config.dev, livereload=True))


def _from_arguments(
    name: str, listen: tuple[str, ...], command: tuple[str, ...], keys: dict[str, Any]
) -> Config:
    from sockmgr.launch.call import recognise

    app = len(command) == 1 and _APP.fullmatch(command[0]) is not None
    if app and Path(_uvicorn(keys.get("cwd", ""))).parent == Path(sys.executable).parent:
        keys = {**keys, "app": command[0]}
        command = ()
    elif app:  # uvicorn is in another environment, where the application may be installed as well
        command = ("uvicorn", command[0])
    if not listen and (app or recognise(command)):
        listen = (LISTEN,)
    return arguments.read(name, listen, command, keys)


def _uvicorn(cwd: str) -> str:
    """Return the path of uvicorn, whose environment is to run the application."""
    from sockmgr.launch.executable import find
    from sockmgr.launch.virtual_env import activated, beside

    home = beside(cwd)
    found = find("uvicorn", activated(os.environ, home) if home else os.environ, cwd)
    if found is None:
        raise ConfigError(
            "uvicorn, which is to run the application, is not installed",
            do="pip install uvicorn, or name another server: sockmgr dev -- COMMAND",
        )
    return found
