"""`sockmgr logs`: what the manager and its workers wrote."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from sockmgr.api.types import JournalPlace, LogLine
from sockmgr.cli import streams, target
from sockmgr.cli.journal import Journal
from sockmgr.client.client import SOCKET_VARIABLE, NoManagerError
from sockmgr.errors import ControlError


@click.command("logs")
@click.argument("service", default="", shell_complete=target.complete_service)
@click.option("-f", "--follow", is_flag=True, help="Go on with the lines that come.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, help="How many; 100.")
@target.options
def command(where: target.Target, service: str, follow: bool, lines: int) -> None:
    """Show what the manager and its workers wrote last, all or about one SERVICE.

    It comes from systemd's journal if the manager writes there, else from the manager itself.
    """
    wish = _Wish(where=where, service=service, follow=follow, lines=lines)
    if follow:
        streams.end_without_reader()
    try:
        place = _show_what_it_tells(wish)
    except NoManagerError:
        if not _show_what_is_left(wish):
            raise
        return
    if place is not None:
        _show_journal(Journal([place], service), wish)
    elif follow:
        target.narrate("the manager has ended")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    where: target.Target
    service: str
    follow: bool
    lines: int


def _show_what_it_tells(wish: _Wish) -> JournalPlace | None:
    """Show what the manager has, or return where it says that its log is."""
    client = wish.where.client()
    if wish.follow:
        replies = client.follow_logs(wish.service, wish.lines)
    else:
        replies = iter([client.logs(wish.service, wish.lines)])
    for reply in replies:
        if reply.journal is not None:
            return reply.journal
        if reply.missed:
            target.narrate(f"{reply.missed} lines missed: they came faster than they were taken")
        _show(wish, reply.lines or ())
    return None


def _show_what_is_left(wish: _Wish) -> bool:
    """Show what the journal has of a manager that is not there; return whether it has anything."""
    name = _name(wish.where)
    if not name or shutil.which("journalctl") is None:
        return False
    units = (f"{name}.service", f"sockmgr@{name}.service")  # as `sockmgr units` and contrib have it
    journal = Journal([JournalPlace(unit=unit) for unit in units], wish.service)
    try:
        found = journal.last(1)
    except ControlError:
        return False
    if found:
        target.narrate(f"no manager answers; the journal has this of {' and '.join(units)}")
        _show_journal(journal, wish)
    return bool(found)


def _name(where: target.Target) -> str:
    if name := where.name():
        return name
    return Path(where.control or os.environ.get(SOCKET_VARIABLE, "")).stem


def _show_journal(journal: Journal, wish: _Wish) -> None:
    _show(wish, journal.last(wish.lines))
    if wish.follow:
        _show(wish, journal.follow())


def _show(wish: _Wish, lines: Iterable[LogLine]) -> None:
    for line in lines:
        streams.tell(_as_json(line) if wish.where.as_json else _shown(line))


def _as_json(line: LogLine) -> str:
    return msgspec.json.encode(line).decode()


def _shown(line: LogLine) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.time))
    mark = "\\" if line.partial else "|"
    who = line.level[0].upper() if line.event else f"{line.source} {mark}"
    return f"{when} {who} {line.message}"
