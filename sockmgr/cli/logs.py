"""`sockmgr logs`: prints what the manager and its workers wrote."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass

import click
import msgspec

from sockmgr.api.types import JournalPlace, LogLine
from sockmgr.cli import streams, target
from sockmgr.cli.journal import Journal
from sockmgr.client.client import NoManagerError
from sockmgr.errors import ControlError


@click.command("logs")
@click.argument("service", default="", shell_complete=target.complete_service)
@click.option("-f", "--follow", is_flag=True, help="Go on with each new line.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, help="How many; 100.")
@target.options
def command(where: target.Target, service: str, follow: bool, lines: int) -> None:
    """Show the last lines of the manager and its workers, all or only those about one SERVICE.

    The lines come from systemd's journal if the manager writes there, else from the manager.
    """
    query = _Query(where=where, service=service, follow=follow, lines=lines)
    if follow:
        streams.end_without_reader()
    try:
        place = _show_from_manager(query)
    except NoManagerError:
        if not _show_without_manager(query):
            raise
        return
    if place is not None:
        _show_journal(Journal([place], service), query)
    elif follow:
        target.narrate("the manager has ended")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    where: target.Target
    service: str
    follow: bool
    lines: int


def _show_from_manager(query: _Query) -> JournalPlace | None:
    """Show the lines that the manager has; if the journal has them, return where instead."""
    client = query.where.client()
    if query.follow:
        replies = client.follow_logs(query.service, query.lines)
    else:
        replies = iter([client.logs(query.service, query.lines)])
    for reply in replies:
        if reply.journal is not None:
            return reply.journal
        if reply.missed:
            target.narrate(f"{reply.missed} lines missed: they came faster than they were taken")
        _show(query, reply.lines or ())
    return None


def _show_without_manager(query: _Query) -> bool:
    """Show the lines that the journal has of a manager that has ended; return whether any."""
    name = _name(query.where)
    if not name or shutil.which("journalctl") is None:
        return False
    units = (f"{name}.service", f"sockmgr@{name}.service")  # of `sockmgr units`, and of contrib
    journal = Journal([JournalPlace(unit=unit) for unit in units], query.service)
    try:
        found = journal.last(1)
    except ControlError:
        return False
    if found:
        target.narrate(f"no manager answers; the journal has this of {' and '.join(units)}")
        _show_journal(journal, query)
    return bool(found)


def _name(where: target.Target) -> str:
    if name := where.name():
        return name
    path = target.control(where.control)
    return path.stem if path else ""


def _show_journal(journal: Journal, query: _Query) -> None:
    _show(query, journal.last(query.lines))
    if query.follow:
        _show(query, journal.follow())


def _show(query: _Query, lines: Iterable[LogLine]) -> None:
    for line in lines:
        as_json = query.where.as_json
        streams.echo(msgspec.json.encode(line).decode() if as_json else _shown(line))


def _shown(line: LogLine) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.time))
    mark = "\\" if line.partial else "|"
    who = line.level[0].upper() if line.event else f"{line.source} {mark}"
    return f"{when} {who} {line.message}"
