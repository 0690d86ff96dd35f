"""`sockmgr logs`: prints what the manager and its workers wrote."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import click
import msgspec

from sockmgr.api.types import JournalPlace, LogLine
from sockmgr.cli import streams, target
from sockmgr.cli.journal import Journal
from sockmgr.client.connection import NoManagerError
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
    if follow:
        streams.end_without_reader()
    for line in _lines(where, service, lines, follow=follow):
        streams.echo(msgspec.json.encode(line).decode() if where.as_json else _shown(line))


def _lines(where: target.Target, service: str, number: int, *, follow: bool) -> Iterator[LogLine]:
    """Yield the lines that the manager has, or that the journal has of it; say where they end."""
    try:
        client = where.client()
        one = () if follow else (client.logs(service, number),)
        for reply in client.follow_logs(service, number) if follow else one:
            if reply.journal is not None:
                yield from _of_journal(Journal([reply.journal], service), number, follow=follow)
                return
            if reply.missed:
                missed = f"{reply.missed} lines missed: they came faster than they were taken"
                target.narrate(missed)
            yield from reply.lines or ()
    except NoManagerError:
        if (journal := _of_one_that_ended(where, service)) is None:
            raise
        yield from _of_journal(journal, number, follow=follow)
        return
    if follow:
        target.narrate("the manager has ended")


def _of_journal(journal: Journal, number: int, *, follow: bool) -> Iterator[LogLine]:
    yield from journal.last(number)
    if follow:
        yield from journal.follow()


def _of_one_that_ended(where: target.Target, service: str) -> Journal | None:
    """Return what the journal has of a manager that has ended, None if it has nothing."""
    name = _name(where)
    if not name or shutil.which("journalctl") is None:
        return None
    units = (f"{name}.service", f"sockmgr@{name}.service")  # of `sockmgr units`, and of contrib
    journal = Journal([JournalPlace(unit=unit) for unit in units], service)
    try:
        if not journal.last(1):
            return None
    except ControlError:
        return None
    target.narrate(f"no manager answers; the journal has this of {' and '.join(units)}")
    return journal


def _name(where: target.Target) -> str:
    if name := where.name():
        return name
    path = target.control(where.control)
    return path.stem if path else ""


def _shown(line: LogLine) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.time))
    mark = "\\" if line.partial else "|"
    who = line.level[0].upper() if line.event else f"{line.source} {mark}"
    return f"{when} {who} {line.message}"
