"""`sockmgr doctor`: prints what is wrong with config, machine, units and workers."""

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
from sockmgr.client.client import Client, ForbiddenError, NoManagerError, StillWaitingError
from sockmgr.client.elsewhere import elsewhere
from sockmgr.client.finding import find_control, given_control, possible_controls
from sockmgr.config.config import Config
from sockmgr.config.plan import RELEASE
from sockmgr.doctor.config import unusable
from sockmgr.doctor.finding import Finding, Patient, Severity
from sockmgr.doctor.manager import gone, keeper, silent, unreachable, why_hidden
from sockmgr.doctor.unit_files import DIRECTORIES
from sockmgr.doctor.visit import Visit
from sockmgr.errors import SockmgrError
from sockmgr.terminal.format import count
from sockmgr.terminal.visible import visible

LOG_LINES = 200  # how many lines of a service in trouble are searched for a reason


@click.command("doctor")
@click.option(
    "--units",
    "directories",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Where units are, instead of systemd's own directories; may be repeated.",
)
@click.option("--systemd", type=int, help="The version of systemd, instead of the one that runs.")
@click.option(
    "--proxy",
    type=click.Path(path_type=Path),
    help="The config of the nginx or HAProxy in front: is its keep-alive above ours?",
)
@target.options
def command(
    where: target.Target, directories: tuple[Path, ...], systemd: int | None, proxy: Path | None
) -> None:
    """Find what is wrong: in the config, on this machine, in installed units, with the workers.

    Exit code 1: at least one problem was found. Nothing is changed.
    """
    visit = _visit(where, directories or DIRECTORIES, systemd, proxy)
    problems = sum(one.check.severity is Severity.PROBLEM for one in visit.findings)
    if where.as_json:
        click.echo(json.dumps([_as_json(one) for one in visit.findings], indent=2))
    else:
        _show(visit.findings)
        counts = f"{count(problems, 'problem')}, {count(len(visit.findings) - problems, 'note')}"
        result = counts if visit.findings else "nothing found"
        click.echo(f"{result}; looked at {', '.join(visit.looked_at)}")
    sys.exit(1 if problems else 0)


def _visit(
    where: target.Target, directories: Sequence[Path], systemd: int | None, proxy: Path | None
) -> Visit:
    visit = Visit()
    path = where.config or Path(target.DEFAULT_CONFIG)
    config = _read(where, path, visit)
    if config is not None and proxy is not None:
        visit.proxy(config, proxy)
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
    """Examine the manager; return whether it may hold the listeners of the config."""
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
    differs = plan and any(not one.path.startswith(RELEASE) for one in plan.changes)
    if plan and differs and not plan.applies:
        target.narrate(f"the manager at {client.path} runs another config")
    if hidden := why_hidden(status.manager.pid, client.peer()):
        target.narrate(f"its processes are not looked at: {hidden}")
    # Workers are compared with the config that their manager runs, not with one not yet loaded.
    visit.manager(status, None if differs or not plan else config, visible=not hidden)
    for service, found in status.services.items():
        if found.state in ("down", "degraded"):
            visit.words(service, _last_lines(client, service), status, visible=not hidden)
    return plan is not None and (plan.applies or not differs)


def _last_lines(client: Client, service: str) -> list[str]:
    """Return the last lines of a service, none if we may not read them."""
    with contextlib.suppress(SockmgrError):
        log = client.logs(service, LOG_LINES)
        lines = log.lines or ()
        if log.journal:
            lines = tuple(Journal([log.journal], service).last(LOG_LINES))
        return [line.message for line in lines]
    return []


def _look_further(control: str | None, name: str | None, visit: Visit) -> bool:
    """Find a manager that does not answer us, or the keeper of one; return whether there is one."""
    if there := list(elsewhere(name, given_control(control))):
        visit.findings += map(unreachable, there)
        return True
    if path := keeper(possible_controls(control, name or "")):
        visit.findings.append(gone(path))
        return True
    target.narrate("no manager runs, so there are no workers to look at")
    return False


def _plan(client: Client, path: Path) -> Plan | None:
    """Return what the config would change in the running manager, None if that is not known."""
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
