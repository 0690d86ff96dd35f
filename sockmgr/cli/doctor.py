"""`sockmgr doctor`: what is wrong with the config, the machine, the units and the workers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sockmgr.cli import target
from sockmgr.cli.table import is_lively
from sockmgr.core.config import Config
from sockmgr.core.errors import SockmgrError
from sockmgr.doctor import config as config_checks
from sockmgr.doctor.finding import Finding, Patient, Severity
from sockmgr.doctor.visit import visit


@click.command("doctor")
@target.options
def command(where: target.Target) -> None:
    """Find what is wrong: in the config, on this machine, in installed units, with the workers.

    Exit code 1: at least one problem was found. Nothing is changed.
    """
    findings, looked_at = _examine(where)
    problems = sum(one.check.severity is Severity.PROBLEM for one in findings)
    if where.as_json:
        click.echo(json.dumps([_as_json(one) for one in findings], indent=2))
    else:
        _show(findings)
        notes = len(findings) - problems
        counts = f"{_count(problems, 'problem')}, {_count(notes, 'note')}"
        click.echo(f"{counts if findings else 'nothing found'}; looked at {', '.join(looked_at)}")
    sys.exit(1 if problems else 0)


def _examine(where: target.Target) -> tuple[list[Finding], list[str]]:
    """Return what was found, and what was looked at."""
    path = where.config or Path(target.DEFAULT_CONFIG)
    findings: list[Finding] = []
    looked_at: list[str] = []
    config: Config | None = None
    if where.config is None and not path.exists():
        target.narrate(f"there is no {path} here: name a config with -c to have it looked at")
    else:
        try:
            config = target.read_config(path)
        except SockmgrError as error:
            findings.append(config_checks.unusable(error, str(path)))
        looked_at.append(str(path))
    findings += visit(config, os.environ)
    return findings, [*looked_at, "this machine"]


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
        head = Text.assemble((one.check.severity, color), f": {one.what} ", f"[{one.check.label}]")
        console.print(Padding(head, (0, 0, 0, 2)))
        console.print(Padding(Text(one.why, style="dim"), (0, 0, 0, 4)))
        console.print(Padding(Text(one.fix), (0, 0, 0, 4)))
    console.print()


def _count(number: int, word: str) -> str:
    return f"{number} {word if number == 1 else word + 's'}"
