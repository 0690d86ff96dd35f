"""Where tests can have the manager killed: a name for each step that changes how things stand.

`SOCKMGR_CRASH_AT=feed` ends the manager by SIGKILL once it has performed its first Feed, and
`SOCKMGR_CRASH_AT=/run/marks/feed:3` at its third; the file `crashed-at-feed` in that directory, or
else in RUNTIME_DIRECTORY, is made first. No manager is ended at a point whose file is there, so the
next one goes on with the same environment.

What a fleet is told and what it orders are points by the names of their types, so a new kind of
either is one by itself: `worker-ready` is when the fleet has decided what that means and nothing of
it is done, `feed` when a Feed is performed. What a dispatcher is told is one, too.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import get_args

from sockmgr.errors import ConfigError
from sockmgr.fleet.messages import Action, Fact

VARIABLE = "SOCKMGR_CRASH_AT"


class Point(StrEnum):
    """The steps that are no type of the fleet's: each has just been taken."""

    # Takeover: how a manager begins.
    CONTROL_CLAIMED = "control-claimed"
    PREDECESSOR_READ = "predecessor-read"
    LISTENERS_TAKEN = "listeners-taken"
    WORKERS_ADOPTED = "workers-adopted"
    MANAGER_THERE = "manager-there"
    # The state, and the descriptors in the store.
    DESCRIPTOR_STORED = "descriptor-stored"
    SPAWNED_STORED = "spawned-stored"
    STATE_HALF_WRITTEN = "state-half-written"
    STATE_WRITTEN = "state-written"
    STATE_COPIED = "state-copied"
    DESCRIPTOR_FORGOTTEN = "descriptor-forgotten"
    ALL_SAVED = "all-saved"
    # Upgrade and restart.
    PROOF_STARTED = "proof-started"
    PROVEN = "proven"
    CONTROL_HANDED_OVER = "control-handed-over"
    NEW_CODE = "new-code"
    LEAVING = "leaving"
    # Config change.
    LISTENER_OPENED = "listener-opened"
    LISTENER_CLOSED = "listener-closed"
    SERVICE_ADDED = "service-added"
    SERVICE_GONE = "service-gone"
    CONFIG_ACCEPTED = "config-accepted"
    # Rollout: what is no order of the fleet's.
    QUEUE_RENEWED = "queue-renewed"
    HOOK_STARTED = "hook-started"
    # Dispatch.
    DISPATCHER_STARTED = "dispatcher-started"
    DISPATCHER_ADOPTED = "dispatcher-adopted"
    DISPATCHER_SUCCEEDS = "dispatcher-succeeds"
    # Moves of kept connections.
    MOVE_QUEUE_MADE = "move-queue-made"
    MOVE_QUEUE_ENDED = "move-queue-ended"


# What the dispatcher is told (programs/dispatcher/messages): `tell-attach` when that was sent.
TOLD = (
    "hello", "service", "attach", "moves", "process", "abandon", "detach", "queue", "listen",
    "feed", "quiet", "forget", "settled", "connections", "give", "ask", "release", "end",
)  # fmt: skip


def name_of(kind: type) -> str:
    """Return the name of a fact or an action: `worker-ready` of WorkerReady."""
    return re.sub(r"(?<=.)(?=[A-Z])", "-", kind.__name__).lower()


NAMES = frozenset(
    (*Point, *map(name_of, get_args(Fact) + get_args(Action)), *(f"tell-{each}" for each in TOLD))
)

_directory, _, _named = os.environ.get(VARIABLE, "").rpartition("/")
_at, _, _time = _named.partition(":")
_seen: Counter[str] = Counter()


def check() -> None:
    """Raise ConfigError if the environment names a point that there is not."""
    if _named and (_at not in NAMES or not (_time or "1").isdecimal()):
        raise ConfigError(
            f"{VARIABLE}: there is no point {_named}",
            means="nothing was started",
            do=f"unset it; the points are {', '.join(sorted(NAMES))}",
        )


def reached(point: Point | Fact | Action) -> None:
    """End this process here if the environment says so."""
    if _at:
        _end_if_at(point if isinstance(point, Point) else name_of(type(point)))


def told(do: str) -> None:
    """End this process here, where it has told the dispatcher so, if the environment says so."""
    if _at:
        _end_if_at(f"tell-{do}")


def is_at(point: Point) -> bool:
    """Tell whether this process is to be ended at this point, for a step that is taken in two."""
    return _at == point


def _end_if_at(name: str) -> None:
    _seen[name] += 1
    if name != _at or _seen[name] != int(_time or 1):
        return
    mark = Path(_directory or os.environ.get("RUNTIME_DIRECTORY", "."), f"crashed-at-{name}")
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
    # Other threads may run on for an instant; this one must not.
    signal.pause()
