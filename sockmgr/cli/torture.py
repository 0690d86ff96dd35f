"""`sockmgr torture`: faults for a server under load, with or without sockmgr, and what was lost."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sockmgr.cli import streams, target
from sockmgr.cli.table import is_lively, show
from sockmgr.cli.target import duration, read_config
from sockmgr.errors import ConfigError

if TYPE_CHECKING:
    from sockmgr.torture.plan import Plan
    from sockmgr.torture.run import Run
    from sockmgr.torture.scenario import Scenario


@click.command("torture")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="Torture what this runs.")
@click.option("--port", type=click.IntRange(1, 65535), help="Where the server listens.")
@click.option("--reload", metavar="LINE", default="", help="How to reload; {pid} is the server's.")
@click.option("--waits", is_flag=True, help="The reload command ends when the reload is done.")
@click.option("--stop", metavar="LINE", help="How to stop gracefully, instead of TERM.")
@click.option("--app", "own_app", is_flag=True, help="Bring an application: app:app, app:wsgi.")
@click.option("--deploy", metavar="LINE", default="", help="Puts {version} in place.")
@click.option("--break", "break_", metavar="LINE", default="", help="Puts broken code in place.")
@click.option("--path", default="/", help="What is asked for.")
@click.option("--expect", default="", help="What each answer holds.")
@click.option("--only", multiple=True, metavar="SCENARIO", help="One scenario; may be repeated.")
@click.option("--seconds", type=duration, default="4", help="How long each scenario takes.")
@click.option("--rate", type=click.FloatRange(1, 2000), default=100.0, help="Requests a second.")
@click.option("--timeout", type=duration, default="5", help="After which a request is lost.")
@click.option("--start-timeout", type=duration, default="30", help="In which the server answers.")
@click.option("--strict", is_flag=True, help="Races of kept connections are lost requests, too.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write a page.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(
    config: Path | None,
    only: Sequence[str],
    json_file: Path | None,
    html_file: Path | None,
    command: tuple[str, ...],
    **options: Any,
) -> None:
    """Load a server, reload, break, kill and stop it, and tell which requests were lost.

    \b
    sockmgr torture --reload 'kill -HUP {pid}' --port 8000 -- uvicorn --workers 4 app:app
    sockmgr torture -c sockmgr.toml

    Exit code 1: something was lost that need not have been.
    """
    plan = _plan(config, command, options)
    scenarios = _scenarios(only)
    run = _run(plan, scenarios, title=f"sockmgr, {config}" if config else " ".join(command))
    from sockmgr.torture import report

    if json_file:
        _write(json_file, json.dumps(report.as_dict(run), indent=1))
    if html_file:
        from sockmgr.torture import page

        _write(html_file, page.page([run]))
    show(report.HEADERS, report.rows(run))
    click.echo()
    for text in (*report.details(run), report.total(run)):
        streams.echo(text)
    sys.exit(0 if run.passed else 1)


def _plan(config: Path | None, command: tuple[str, ...], options: dict[str, Any]) -> Plan:
    from sockmgr.torture.plan import Plan

    given = {key: value for key, value in options.items() if value is not None}
    if (config is None) == (not command):
        raise click.UsageError("give either a config file, or -- COMMAND [ARGUMENT]...")
    if config is not None:
        own = [sys.executable, "-m", "sockmgr"]
        control = ["--control", "{dir}/control.sock"]
        reload = " ".join([*own, "reload", *control])
        defaults = {"port": _port(config), "reload": reload, "waits": True}
        given = {**defaults, **{key: value for key, value in given.items() if value}}
        command = (*own, "run", "-c", str(target.absolute(config)), *control)
    elif "port" not in given:
        raise click.UsageError("--port says where the command listens")
    return Plan(command=command, **given)


def _port(file: Path) -> int:
    for address in (listen.address for listen in read_config(file).listen):
        if address.scheme == "tcp" and address.port:
            return address.port
    raise ConfigError(f"{file} has no TCP listener with a port of its own", do="add one, or --port")


def _scenarios(only: Sequence[str]) -> list[Scenario]:
    from sockmgr.torture.scenario import SCENARIOS

    known = {each.name: each for each in SCENARIOS}
    for name in only:
        if name not in known:
            raise click.UsageError(f'no scenario "{name}"; there are {", ".join(known)}')
    return [each for name, each in known.items() if not only or name in only]


def _run(plan: Plan, scenarios: list[Scenario], *, title: str) -> Run:
    from sockmgr.torture.run import torture

    # Whoever ends us so must not leave servers behind: this unwinds what has been entered.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _progress(len(scenarios) + 1) as told:
        return torture(plan, scenarios, title=title, told=told)


@contextlib.contextmanager
def _progress(number: int) -> Iterator[Callable[[str], None]]:
    """Yield what tells of each step: a bar on a terminal, a line elsewhere."""
    if not is_lively(sys.stderr):
        yield target.narrate
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    with Progress(
        *columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("", total=number, completed=-1)

        def told(what: str) -> None:
            bar.update(task, advance=1, description=what)

        yield told


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise ConfigError(
            f"cannot write {file}: {error.strerror}", do="correct the path"
        ) from error
