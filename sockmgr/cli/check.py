"""`sockmgr check`: prints whether the config is usable, and what it would change."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from sockmgr.api.types import Plan
from sockmgr.cli import table, target
from sockmgr.client.client import Client
from sockmgr.client.connection import ForbiddenError, NoManagerError
from sockmgr.client.finding import find_control
from sockmgr.config import config
from sockmgr.config.config import Config
from sockmgr.doctor.finding import Finding
from sockmgr.doctor.manager import unasked
from sockmgr.doctor.unix_sockets import private, unbelieved
from sockmgr.errors import ConfigError, ControlError, SockmgrError
from sockmgr.launch import access, notes, virtual_env
from sockmgr.launch.examination import examine
from sockmgr.launch.resolve import prepare
from sockmgr.launch.surroundings import here
from sockmgr.terminal.format import count
from sockmgr.terminal.visible import visible

COLOURS = {
    "+": "green", "-": "red", "~": "cyan", "!": "bright_yellow", "warning:": "yellow",
    "note:": "bright_black",
}  # fmt: skip


class _Asked(NamedTuple):
    """What a manager said of the config; without a `plan`, `why` tells what nobody knows."""

    control: str | None  # where it listens
    plan: Plan | None
    warnings: list[str]
    why: str | ControlError


@click.command("check")
@target.options
def command(where: target.Target) -> None:
    """Check the config, and show what it would change in the running manager.

    \b
    + added      ~ changed, no worker need be replaced
    - removed    ! changed, workers are replaced

    Exit code 0: the config can be used, whether it changes anything or not; 2: it cannot.
    """
    path = where.config or Path(target.DEFAULT_CONFIG)
    try:
        counts, flaws, remarks, asked = _judged(where, target.read(path), path)
    except ConfigError as error:
        if where.as_json:
            failure = {"what": error.what, "means": error.means, "do": error.do}
            click.echo(json.dumps({"valid": False, "config": str(path), "error": failure}))
        raise
    if not where.as_json:
        _show(
            f"{path} is valid: {counts}",
            *(f"  warning: {flaw}" for flaw in flaws),
            *(f"  note: {remark}" for remark in remarks),
        )
    plan = asked.plan
    if isinstance(asked.why, ControlError):
        raise asked.why
    if where.as_json:
        answer = {"valid": True, "config": str(path), "warnings": flaws + asked.warnings}
        answer |= {"notes": remarks, "manager": asked.control}
        answer |= msgspec.to_builtins(plan) if plan else {"changes": None, "applies": None}
        click.echo(json.dumps(answer, ensure_ascii=False))
    elif plan:
        _show(*(f"  warning: {flaw}" for flaw in asked.warnings))
        _show(*(f"  {change.text}" for change in plan.changes))
        for line in _conclusion(plan):
            target.narrate(line)
    if not plan:
        target.narrate(asked.why)


def _judged(
    where: target.Target, data: bytes, path: Path
) -> tuple[str, list[str], list[str], _Asked]:
    """Return what is in the config, what harms, remarks, and what _ask() does; raise ConfigError.

    The word of a manager that reads it counts: only it knows what its user and environment allow.
    """
    try:
        found = config.parse(data, file=str(path), outside=here())
        with found.placing("control"):
            access.resolve(found.control)
        flaws, borrowed = _examined(found)
    except ConfigError as error:
        with contextlib.suppress(SockmgrError):
            asked = _ask(where, config.name(data, file=str(path)), data, path)
            if asked.plan and asked.plan.applies:
                why = f"user {os.geteuid()} could not run it: {error.what}"
                return "says the manager that reads it", [], [why], asked
        raise
    counts = f"{count(len(found.listen), 'listener')}, {count(len(found.services), 'service')}"
    remarks = [*borrowed, *_remarks(found)]
    return counts, flaws, remarks, _ask(where, found.name, data, path, found)


def _examined(found: Config) -> tuple[list[str], list[str]]:
    """Return what harms the services, and which of them run in the environment of a manager."""
    flaws, borrowed = list[str](), list[str]()
    for service in found.services:
        with found.placing("service", service.name):
            prepared = prepare(service, found.listens(), os.environ)
            spec = prepared.spec()
            flaws += (*prepared.warnings(), *examine(prepared.service, spec))
            why = virtual_env.borrowed(service, spec.executable, spec.cwd)
            borrowed += [f"service.{service.name}: {why}"] if why else []
    return flaws, borrowed


def _remarks(found: Config) -> list[str]:
    seen = (*private(found.listen, ahead=True), *unbelieved(found, os.environ))
    return [*(text for service in found.services for text in notes.of(service)), *_told(seen)]


def _told(findings: Iterable[Finding]) -> list[str]:
    return [f"{one.what}: {one.why}; {one.fix}" for one in findings]


def _ask(
    where: target.Target, name: str, data: bytes, path: Path, found: Config | None = None
) -> _Asked:
    """Ask the manager; raise ConfigError if it cannot use the config."""
    try:
        control = find_control(where.control, name, path.absolute())
        asked = Client(control, timeout=where.timeout)
        plan = asked.plan(data.decode(), str(path.absolute()))
        listeners = asked.status(sizes=False).listeners
        missed = _told(unasked(found, listeners)) if found else []
        return _Asked(str(control), plan, missed, "")
    except ForbiddenError as error:
        return _Asked(str(control), None, [], f"what would change is not known: {error.what}")
    except ControlError as error:
        # None, or one that has ended since it told its plan: but that which was named must answer.
        if where.control or not isinstance(error, NoManagerError):
            return _Asked(None, None, [], error)
        why = f'no manager named "{name}" is running: nothing to compare with'
        return _Asked(None, None, [], why)
    except ConfigError as error:
        means = "the manager that runs cannot use it, as its user or in its environment"
        raise ConfigError(error.what, means=means, do=error.do) from error


def _show(*lines: str) -> None:
    if not table.is_lively(sys.stdout):
        for line in lines:
            click.echo(line)
        return
    for line in lines:
        colour = COLOURS.get(line.split()[0]) if line.startswith(" ") else None
        click.secho(visible(line, colours=False), fg=colour)


def _conclusion(plan: Plan) -> Iterator[str]:
    if not plan.changes:
        yield "nothing would change: this is the config that runs"
    elif plan.applies:
        rolls = any(change.text.startswith("!") for change in plan.changes)
        none = "" if rolls else ", none of which needs new workers"
        yield (
            f'{count(len(plan.changes), "change")}{none}; "sockmgr reload" takes the config over, '
            "and starts new workers in any case, since their code may be new"
        )
    if not plan.applies:
        yield "the manager reads another config, so a reload does not take this one over"
