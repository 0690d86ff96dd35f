"""`sockmgr doctor`: what is wrong with the config, the machine, the units and the workers."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sockmgr.api.types import Plan
from sockmgr.cli import target
from sockmgr.cli.journal import Journal
from sockmgr.cli.table import is_lively
from sockmgr.client.client import (
    Client,
    ForbiddenError,
    NoManagerError,
    StillWaitingError,
    find_control,
    given_control,
    possible_controls,
)
from sockmgr.client.elsewhere import elsewhere
from sockmgr.config.config import Config
from sockmgr.doctor.config import unusable
from sockmgr.doctor.finding import Finding, Patient, Severity
from sockmgr.doctor.manager import gone, keeper, silent, unreachable, why_hidden
from sockmgr.doctor.unit_files import DIRECTORIES
from sockmgr.doctor.visit import Visit
from sockmgr.errors import SockmgrError
from sockmgr.terminal.visible import visible

WORDS = 200  # lines of a service in trouble that are looked at


@click.command("doctor")
@click.option(
    "--units",
    "directories",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Where units are, instead of systemd's own directories; may be repeated.",
)
@click.option("--systemd", type=int, help="Its version, instead of that which runs.")
@target.options
def command(where: target.Target, directories: tuple[Path, ...], systemd: int | None) -> None:
    """Find what is wrong: in the config, on this machine, in installed units, with the workers.

    Exit code 1: at least one problem was found. Nothing is changed.
    """
    visit = _visit(where, directories or DIRECTORIES, systemd)
    problems = sum(one.check.severity is Severity.PROBLEM for one in visit.findings)
    if where.as_json:
        click.echo(json.dumps([_as_json(one) for one in visit.findings], indent=2))
    else:
        _show(visit.findings)
        counts = f"{_count(problems, 'problem')}, {_count(len(visit.findings) - problems, 'note')}"
        told = counts if visit.findings else "nothing found"
        click.echo(f"{told}; looked at {', '.join(visit.looked_at)}")
    sys.exit(1 if problems else 0)


def _visit(where: target.Target, directories: Sequence[Path], systemd: int | None) -> Visit:
    visit = Visit()
    path = where.config or Path(target.DEFAULT_CONFIG)
    config = _read(where, path, visit)
    visit.machine(config)
    has_unit = config is not None and visit.units(config, path, directories, systemd)
    is_running = _ask(where, config, path, visit)
    if config is not None and (has_unit or is_running):
        visit.sockets(config)
    elif config is not None:
        visit.start(config, where.control)
    return visit


def _read(where: target.Target, path: Path, visit: Visit) -> Config | None:
    if where.config is None and not path.exists():
        target.narrate(f"there is no {path} here: name a config with -c to have it looked at")
        return None
    visit.looked_at.append(str(path))
    try:
        config = target.read_config(path)
    except SockmgrError as error:
        visit.findings.append(unusable(error, str(path)))
        return None
    visit.config(config)
    return config


def _ask(where: target.Target, config: Config | None, path: Path, visit: Visit) -> bool:
    """Have the manager looked at; return whether the listeners of the config are taken care of."""
    name = config.name if config else None
    try:
        client = Client(find_control(where.control, name, path.absolute()), timeout=where.timeout)
        status = client.status()
    except (NoManagerError, ForbiddenError):
        return _look_further(where.control, name, visit)
    except StillWaitingError as error:
        visit.findings.append(silent(error))
        return True
    except SockmgrError as error:
        target.narrate(f"workers are not looked at: {error}")
        return True
    plan = _plan(client, path) if config else None
    if plan and plan.changes and not plan.applies:
        target.narrate(f"the manager at {client.path} runs another config")
    if hidden := why_hidden(status.manager.pid, client.peer()):
        target.narrate(f"its processes are not looked at: {hidden}")
    # Workers are held to what their manager runs, not to what it would after a reload.
    visit.manager(status, config if plan and not plan.changes else None, visible=not hidden)
    for service, found in status.services.items():
        if found.state in ("down", "degraded"):
            visit.words(service, _last_words(client, service))
    return plan is not None and (plan.applies or not plan.changes)


def _last_words(client: Client, service: str) -> list[str]:
    """Return what a service said last, as far as we may read it."""
    with contextlib.suppress(SockmgrError):
        told = client.logs(service, WORDS)
        lines = Journal([told.journal], service).last(WORDS) if told.journal else told.lines or ()
        return [line.message for line in lines]
    return []


def _look_further(control: str | None, name: str | None, visit: Visit) -> bool:
    if there := list(elsewhere(name, given_control(control))):
        visit.findings += map(unreachable, there)
        return True
    if path := keeper(possible_controls(control, name or "")):
        visit.findings.append(gone(path))
        return True
    target.narrate("no manager runs, so there are no workers to look at")
    return False


def _plan(client: Client, path: Path) -> Plan | None:
    """Return what the config would change in the manager that runs, None if it cannot tell."""
    try:
        return client.plan(path.read_text(), str(path.absolute()))
    except SockmgrError:
        return None


# --- Answer --------------------------------------------------------------------------------------


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check.label,
        "patient": finding.check.patient,
        "severity": finding.check.severity,
        "subject": finding.subject,
        "what": finding.what,
        "why": finding.why,
        "fix": finding.fix,
    }


def _show(findings: Sequence[Finding]) -> None:
    show = _draw if is_lively(sys.stdout) else _print
    for patient in Patient:
        group = [one for one in findings if one.check.patient is patient]
        if group:
            show(patient, group)


def _print(patient: Patient, group: Sequence[Finding]) -> None:
    click.echo(patient)
    for one in group:
        click.echo(f"  {one.check.severity}: {one.what} [{one.check.label}]")
        click.echo(f"    {one.why}\n    {one.fix}")
    click.echo()


def _draw(patient: Patient, group: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    console.print(Text(patient, style="bold"))
    for one in group:
        color = "red" if one.check.severity is Severity.PROBLEM else "yellow"
        what, why, fix = (visible(text, colours=False) for text in (one.what, one.why, one.fix))
        head = Text.assemble((one.check.severity, color), f": {what} ", f"[{one.check.label}]")
        console.print(Padding(head, (0, 0, 0, 2)))
        console.print(Padding(Text(why, style="dim"), (0, 0, 0, 4)))
        console.print(Padding(Text(fix), (0, 0, 0, 4)))
    console.print()


def _count(number: int, word: str) -> str:
    return f"{number} {word if number == 1 else word + 's'}"
