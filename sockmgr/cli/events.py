"""`sockmgr events`: prints what happens, and goes on with the next manager when one leaves."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator

import click
import msgspec

from sockmgr.api.records import line_about
from sockmgr.api.types import Event
from sockmgr.api.varlink import Happened
from sockmgr.cli import streams, target
from sockmgr.client.client import Client
from sockmgr.client.connection import LostError, NoManagerError, StillWaitingError

LOOK_AGAIN = 0.2  # seconds between two attempts: nothing announces that a manager listens again


@click.command("events")
@click.argument("service", default="", shell_complete=target.complete_service)
@click.option(
    "-n", "--last", type=click.IntRange(0), default=20, help="How many past events to show; 20."
)
@click.option("--no-follow", is_flag=True, help="Do not wait for further events.")
@target.options
def command(where: target.Target, service: str, last: int, no_follow: bool) -> None:
    """Show the last events and then each new one, of one SERVICE or all: one line an event.

    When the manager is upgraded, restarted or killed, this goes on with the next manager, and shows
    each event once. A note on stderr says so if events were missed.
    """
    client = where.client()
    if no_follow:
        answers = iter([client.events(service, last=last)])
    else:
        streams.end_without_reader()
        answers = _follow(client, service, last, patience=where.timeout)
    for answer in answers:
        if answer.missed:
            target.narrate("events were missed: the manager does not have them any more")
        for event in answer.events:
            click.echo(msgspec.json.encode(event) if where.as_json else _shown(event))


def _follow(
    client: Client, service: str, last: int, *, patience: float | None
) -> Iterator[Happened]:
    replies, after = client.follow_events(service, last=last), 0
    while True:
        try:
            for answer in replies:
                after = answer.newest
                yield answer
        except LostError:  # the manager was killed
            pass
        target.narrate("the manager has left; waiting for the next one")
        replies = _next_manager(client, service, after, patience=patience)
        target.narrate("the next manager answers")


def _next_manager(
    client: Client, service: str, after: int, *, patience: float | None
) -> Iterator[Happened]:
    """Wait for a manager, for `patience` seconds (None: without an end); return its events."""
    deadline = math.inf if patience is None else time.monotonic() + patience
    while True:
        replies = client.follow_events(service, after=after)
        try:
            return itertools.chain([next(replies)], replies)
        except (NoManagerError, LostError, StillWaitingError):
            if time.monotonic() >= deadline:
                raise
        time.sleep(LOOK_AGAIN)


def _shown(event: Event) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    return f"{when} {event.level[0].upper()} {line_about(event)}"
