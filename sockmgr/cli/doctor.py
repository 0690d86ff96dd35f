"""`sockmgr doctor`: prints what is wrong with config, machine, units and workers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from sockmgr.api.types import LogLine, Plan, Status
from sockmgr.cli import table, target
from sockmgr.cli.journal import Journal
from sockmgr.client.client import Client
from sockmgr.client.connection import ForbiddenError, NoManagerError, StillWaitingError
from sockmgr.client.elsewhere import elsewhere
from sockmgr.client.finding import find_control, given_control, possible_controls
from sockmgr.config.config import Config
from sockmgr.config.plan import RELEASE
from sockmgr.doctor import config as config_checks
from sockmgr.doctor import (
    machine,
    manager,
    ports,
    proxy,
    start,
    unit_files,
    units,
    unix_sockets,
    workers,
)
from sockmgr.doctor.finding import Finding, Patient, Severity
from sockmgr.errors import ConfigError, SockmgrError
from sockmgr.terminal.format import count
from sockmgr.terminal.visible import visible

LOG_LINES = 200  # how many lines of a service in trouble are searched for a reason
_NOT_HELD = "runs another config, so its workers are not held to this one: see sockmgr check"


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
    "front",
    type=click.Path(path_type=Path),
    help="The config of the nginx or HAProxy in front: is its keep-alive above ours?",
)
@target.options
def command(
    where: target.Target, directories: tuple[Path, ...], systemd: int | None, front: Path | None
) -> None:
    """Find what is wrong: in the config, on this machine, in installed units, with the workers.

    Exit code 1: at least one problem was found. Nothing is changed.
    """
    visit = _visit(where, directories or unit_files.DIRECTORIES, systemd, front)
    problems = sum(one.check.severity is Severity.PROBLEM for one in visit.findings)
    if where.as_json:
        click.echo(json.dumps([_as_json(one) for one in visit.findings], indent=2))
    else:
        _show(visit.findings)
        counts = f"{count(problems, 'problem')}, {count(len(visit.findings) - problems, 'note')}"
        result = counts if visit.findings else "nothing found"
        click.echo(f"{result}; looked at {', '.join(visit.looked_at)}")
    sys.exit(1 if problems else 0)


@dataclass(slots=True)
class _Visit:
    """What was looked at, and the findings."""

    looked_at: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def _visit(
    where: target.Target, directories: Sequence[Path], systemd: int | None, front: Path | None
) -> _Visit:
    visit = _Visit()
    path = where.config or Path(target.DEFAULT_CONFIG)
    config = _read(where, path, visit)
    if config and front:
        visit.looked_at.append(str(front))
        visit.findings += proxy.examine(config, front)
    visit.looked_at.append("this machine")
    visit.findings += machine.examine(config)
    found = unit_files.installed(path.absolute(), directories) if config else ()
    for each in found:
        visit.looked_at += [each.service.name, *(unit.name for unit in each.sockets)]
        visit.findings += units.examine(config, each, systemd) if config else ()
        if directories == unit_files.DIRECTORIES:
            visit.findings += units.state(each.service.name)
    is_running = _ask(where, config, path, visit)
    if config and (found or is_running):
        visit.findings += unix_sockets.private(config.listen, ahead=False)
    elif config:
        visit.findings += start.examine(config, where.control)
    return visit


def _read(where: target.Target, path: Path, visit: _Visit) -> Config | None:
    if where.config is None and not path.exists():
        target.narrate(f"there is no {path} here: name a config with -c to have it looked at")
        return None
    visit.looked_at.append(str(path))
    try:
        config = target.read_config(path)
    except SockmgrError as error:
        visit.findings.append(config_checks.unusable(error, str(path)))
        return None
    visit.findings += config_checks.examine(config, os.environ)
    return config


def _ask(where: target.Target, config: Config | None, path: Path, visit: _Visit) -> bool:
    """Examine the manager; return whether it may hold the listeners of the config."""
    name = config.name if config else None
    try:
        client = Client(find_control(where.control, name, path.absolute()), timeout=where.timeout)
        status = client.status()
    except (NoManagerError, ForbiddenError):
        return _look_further(where.control, name, visit)
    except StillWaitingError as error:
        visit.findings.append(manager.silent(error))
        return True
    except SockmgrError as error:
        target.narrate(f"workers are not looked at: {error}")
        return True
    plan = _plan(client, path, visit) if config else None
    visit.findings += manager.unasked(config, status.listeners) if config else ()
    differs = plan and any(not one.path.startswith(RELEASE) for one in plan.changes)
    if plan and differs:
        target.narrate(f"the manager at {client.path} {_NOT_HELD}")
    if hidden := manager.why_hidden(status.manager.pid, client.peer()):
        target.narrate(f"its processes are not looked at: {hidden}")
    number = sum(len(service.workers) for service in status.services.values())
    visit.looked_at.append(f"manager {status.manager.pid} with {count(number, 'worker')}")
    # Workers are compared with the config that their manager runs, not with one not yet loaded.
    runs = None if differs or not plan else config
    for one in _of_manager(client, status, runs, visible=not hidden):
        visit.findings += [one] if one not in visit.findings else []
    return plan is not None and (plan.applies or not differs)


def _of_manager(
    client: Client, status: Status, config: Config | None, *, visible: bool
) -> Iterator[Finding]:
    """Look at a running manager; `config` is the config it runs, None if that is not known.

    Its processes are looked at only if they are `visible` under their pids here.
    """
    if visible:
        yield from manager.examine(status.manager.pid)
    yield from workers.examine(status, config, visible=visible)
    if config:
        # Imported late, because it imports ssl, which would slow down shell completion.
        from sockmgr.doctor import answers

        yield from config_checks.of_manager(config, status.manager.pid) if visible else ()
        yield from workers.unnamed(status.services, config)
        yield from answers.examine(status, config) if visible else ()
    for service, found in status.services.items():
        if found.state in ("down", "degraded"):
            lines = _last_lines(client, service)
            yield from workers.refused(service, lines)
            words = [line.message for line in lines]
            yield from ports.taken(service, words, status) if visible else ()


def _last_lines(client: Client, service: str) -> Sequence[LogLine]:
    """Return the last lines of a service, none if we may not read them."""
    with contextlib.suppress(SockmgrError):
        log = client.logs(service, LOG_LINES)
        lines = log.lines or ()
        if log.journal:
            lines = tuple(Journal([log.journal], service).last(LOG_LINES))
        return lines
    return []


def _look_further(control: str | None, name: str | None, visit: _Visit) -> bool:
    """Find a manager that does not answer us, or the keeper of one; return whether there is one."""
    if there := list(elsewhere(name, given_control(control))):
        visit.findings += map(manager.unreachable, there)
        return True
    if path := manager.keeper(possible_controls(control, name or "")):
        visit.findings.append(manager.gone(path))
        return True
    target.narrate("no manager runs, so there are no workers to look at")
    return False


def _plan(client: Client, path: Path, visit: _Visit) -> Plan | None:
    """Return what the config would change in the running manager, None if that is not known."""
    try:
        return client.plan(path.read_text(), str(path.absolute()))
    except ConfigError as error:  # which its user, or its environment, cannot use
        visit.findings.append(config_checks.unusable(error, str(path)))
        return None
    except SockmgrError:
        return None


def _as_json(finding: Finding) -> dict[str, str]:
    check = finding.check
    kind = {"check": check.label, "patient": check.patient, "severity": check.severity}
    return kind | {name: getattr(finding, name) for name in ("subject", "what", "why", "fix")}


def _show(findings: Sequence[Finding]) -> None:
    is_lively = table.is_lively(sys.stdout)

    def wrapped(text: str, indent: int) -> str:
        """Return a text as narrow as the terminal; whole lines elsewhere."""
        room = shutil.get_terminal_size().columns
        blank = " " * indent
        text = visible(text, colours=False) if is_lively else text
        return click.wrap_text(text, room, blank, blank) if is_lively else blank + text

    for patient in Patient:
        group = [one for one in findings if one.check.patient is patient]
        if group:
            click.echo(click.style(patient, bold=True) if is_lively else patient)
        for one in group:
            kind = one.check.severity
            head = wrapped(f"{kind}: {one.what} [{one.check.label}]", 2)
            colour = "red" if kind is Severity.PROBLEM else "yellow"
            click.echo(head.replace(kind, click.style(kind, fg=colour), 1) if is_lively else head)
            why = wrapped(one.why, 4)
            click.echo(click.style(why, dim=True) if is_lively else why)
            click.echo(wrapped(one.fix, 4))
        if group:
            click.echo()
