"""What a key asks the manager for: the question first, then the request, then how it went.

Each is one blocking call of a client, made in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sockmgr.api.types import Progress, Status, Verdict
from sockmgr.client.client import Client
from sockmgr.top.view import Place

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked when the question is answered with yes.

    `perform` returns how it went, and tells on the way how far it is.
    """

    question: str
    perform: Callable[[Client, Say], str]


def reload(place: Place) -> Request:
    """Ask for new workers of a service."""
    name = place.service

    def perform(client: Client, say: Say) -> str:
        def on_progress(news: Progress) -> None:
            say(f"{name}: generation {news.generation} {news.phase}, "
                 f"{news.ready}/{news.wanted} ready, {news.seconds:.1f} s")  # fmt: skip

        say(f"reloading {name}")
        return "; ".join(_outcome(verdict) for verdict in client.reload((name,), on_progress))

    return Request(question=f"reload {name}?", perform=perform)


def _outcome(verdict: Verdict) -> str:
    if verdict.verdict == "committed":
        return (
            f"{verdict.service}: generation {verdict.generation} serves after "
            f"{verdict.seconds:.1f} s"
        )
    aborted = f"{verdict.service}: generation {verdict.generation} aborted"
    return f"{aborted}, {verdict.stays}: {verdict.reason}"


def scale(place: Place, status: Status, more: int) -> Request | str:
    """Ask for one worker more or less; return why not if that cannot be."""
    name = place.service
    now = status.services[name].wanted
    wanted = now + more
    if wanted < 1:
        return f"{name} has one worker, the least there is; `sockmgr stop` ends it"

    def perform(client: Client, say: Say) -> str:
        say(f"scaling {name} to {wanted}")
        return f"{name}: {client.scale(name, wanted, relative=False)} workers are ready"

    return Request(question=f"scale {name} from {now} to {wanted}?", perform=perform)


def restart(place: Place) -> Request | str:
    """Ask for another worker in the place of one; return why not if none is chosen."""
    worker = place.worker
    if not worker:
        return "choose a worker first, with the keys up and down"

    def perform(client: Client, say: Say) -> str:
        say(f"restarting {worker}")
        successor = client.restart_worker(worker)
        return f"{worker} is replaced by {successor}" if successor else f"{worker} has left"

    return Request(question=f"restart {worker}?", perform=perform)
