"""What each key asks the manager for: first a question to the user, then the call, then a report.

A call blocks, so the session makes it in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sockmgr.api.types import Status, Verdict
from sockmgr.client.client import Client
from sockmgr.top.view import Place

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A question, and what is done when the user answers yes.

    `perform` blocks; it says on the way how far it is, and returns how it went.
    """

    question: str
    perform: Callable[[Client, Say], str]


def reload(place: Place) -> Request:
    name = place.service

    def perform(client: Client, say: Say) -> str:
        say(f"reloading {name}")
        verdicts = client.reload((name,), lambda step: say(str(step)))
        return "; ".join(map(_outcome, verdicts))

    return Request(question=f"reload {name}?", perform=perform)


def _outcome(verdict: Verdict) -> str:
    which = f"{verdict.service}: generation {verdict.generation}"
    if verdict.verdict == "committed":
        return f"{which} serves after {verdict.seconds:.1f} s"
    return f"{which} aborted, {verdict.stays}: {verdict.reason}"


def scale(place: Place, status: Status, more: int) -> Request | str:
    """Return the request for `more` workers (negative: fewer), or why that cannot be."""
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
    """Return the request to replace the chosen worker, or why that cannot be."""
    worker = place.worker
    if not worker:
        return "choose a worker first, with the keys up and down"

    def perform(client: Client, say: Say) -> str:
        say(f"restarting {worker}")
        successor = client.restart_worker(worker)
        return f"{worker} is replaced by {successor}" if successor else f"{worker} has left"

    return Request(question=f"restart {worker}?", perform=perform)
