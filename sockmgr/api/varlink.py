"""The interface io.sockmgr.Manager as types: its calls, replies and methods.

The manager and its client share this module; `io.sockmgr.Manager.varlink` describes the same
interface for all other clients. wire.py makes bytes of calls and replies.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from sockmgr.api.types import Event, JournalPlace, LogLine, Plan, Progress, Status, Verdict

INTERFACE = "io.sockmgr.Manager"
SERVICE = "org.varlink.service"
LONGEST_CALL = 64 * 1024  # bytes; the manager hangs up on a client that sends a longer call

# --- Calls: a parameter that Varlink calls nullable may be left out, or be null ------------------


class GetInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask which program this is, and which interfaces it has."""


class GetInterfaceDescription(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """Ask for the description of one interface, as text."""

    interface: str


class AskStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask what runs; with `sizes` false without the memory of workers, which takes longest."""

    sizes: bool | None = None


class AskHealth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask whether a service, or each one, serves; with `ready`, whether it wants new traffic."""

    service: str | None = None
    ready: bool | None = None


class AskReload(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Replace the workers of these services; of all services if none is named.

    With `together` all of them, or none. `canary` has shares in percent, each for so many
    `seconds`, the last one held with `hold`; what is left out is as the config has it.
    """

    services: tuple[str, ...] | None = None
    together: bool | None = None
    canary: tuple[int, ...] | None = None
    seconds: Annotated[float, msgspec.Meta(ge=0.001, le=31_536_000)] | None = None
    hold: bool | None = None


class AskScale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Run this many workers; if `relative`, this many more or fewer than now."""

    service: str
    workers: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
    relative: bool | None = None


class AskStop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Drain all workers, or kill them with `now`, then end the manager."""

    now: bool | None = None


class AskPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask what the config `text` of `file` would change; without them, what a reload would."""

    text: str | None = None
    file: str | None = None


class AskLogs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the last `lines` of the log, of all or one service; with `more`, also new lines."""

    service: str | None = None
    lines: Annotated[int, msgspec.Meta(ge=0)] | None = None


class AskEvents(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the `last` events of all or one service, or for all `after` an id.

    Called with `more`, each new event follows.
    """

    service: str | None = None
    after: int | None = None
    last: Annotated[int, msgspec.Meta(ge=0)] | None = None


class AskRestartWorker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replace one worker (`web@7.2`) by another of its generation."""

    worker: str


class AskPromote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give the canary of a service everything; of the only one with a rollout if none is named."""

    service: str | None = None


class AskAbort(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Take back the rollout of a service; of the only one with a rollout if none is named."""

    service: str | None = None
    reason: str | None = None


class AskRollback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bring back generation `to` of a service, or the one before.

    The service may be left out if it is the only one.
    """

    service: str | None = None
    to: Annotated[int, msgspec.Meta(ge=1)] | None = None


class AskHistory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask which generations one service has had, or each."""

    service: str | None = None


class AskUpgrade(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replace the manager's own code by the code that is installed now."""


Ask = (
    GetInfo | GetInterfaceDescription | AskStatus | AskHealth | AskReload | AskScale | AskStop
    | AskPlan | AskUpgrade | AskLogs | AskEvents | AskRestartWorker | AskRollback | AskHistory
    | AskPromote | AskAbort
)  # fmt: skip

# --- Replies -------------------------------------------------------------------------------------


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to GetInfo."""

    vendor: str
    product: str
    version: str
    url: str
    interfaces: tuple[str, ...]


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to GetInterfaceDescription."""

    description: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to Health: the answer, and one line that says why."""

    healthy: bool
    line: str


class Reloaded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reply to what asks for a verdict: with `more` any `progress`, then the `verdicts`."""

    progress: Progress | None = None
    verdicts: tuple[Verdict, ...] | None = None


class Scaled(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to Scale: how many workers are wanted now."""

    workers: int


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to Stop, when no worker is left."""


class Upgrading(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to Upgrade: the new code has been proven, and takes over from `version` now."""

    version: str


class Logged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reply to Logs: `lines`, and how many before them are `missed`; or the `journal` with them."""

    lines: tuple[LogLine, ...] | None = None
    missed: int | None = None
    journal: JournalPlace | None = None

    @property
    def is_news(self) -> bool:
        """Whether it has something for a client that follows the log."""
        return bool(self.lines or self.missed)


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to Events: `missed` is whether the manager has dropped earlier events of the range.

    `newest` is the id after which the next events come.
    """

    events: tuple[Event, ...]
    missed: bool
    newest: int

    @property
    def is_news(self) -> bool:
        """Whether it has something for a client that follows the events."""
        return bool(self.events or self.missed)


class PastGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """A generation that a service has, or has had.

    `began` is when, in seconds since 1970. `origin` is how it came, "start", "reload" or
    "rollback", and "" if that is not known; `by` is who asked for it; `rollback` is the generation
    that it brings back, 0 if none. `verdict` is "committed" or "aborted", "" without one yet.
    `served` is for how many seconds it was the one that serves, None if it never was; `serves` is
    whether it still is. `kept` is whether `sockmgr rollback` could go back to it.
    """

    service: str
    generation: int
    began: float
    origin: str
    by: str
    rollback: int
    verdict: str
    reason: str
    served: float | None
    serves: bool
    directory: str
    release: str
    kept: bool


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to History: service by service, the oldest generation first."""

    generations: tuple[PastGeneration, ...]


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to RestartWorker: the name of the new worker, "" if none was needed."""

    successor: str


Answer = (
    Info | Description | Status | Health | Reloaded | Scaled | Stopped
    | Plan | Upgrading | Logged | Happened | Restarted | Remembered
)  # fmt: skip

# --- Methods -------------------------------------------------------------------------------------

_AskT = TypeVar("_AskT", bound=Ask)
_AnswerT = TypeVar("_AnswerT", bound=Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[_AskT, _AnswerT]):
    """One method of an interface: all that the server and the client need to know about it.

    The server calls the manager's method `handler` with the parameters that the caller gave, by
    name, so the handler has a default for each parameter that Varlink calls nullable. `answer`
    makes the reply from the value that the handler returns. A method without a `handler` is
    answered by the server itself.
    """

    name: str
    ask: type[_AskT]
    reply: type[_AnswerT]
    handler: str = ""
    answer: Callable[[Any], _AnswerT] | None = None  # None: the handler returns the reply itself
    progress: Callable[[Progress], _AnswerT] | None = None  # makes the reply that reports one step
    waits: bool = False  # it waits for workers, so many such calls may be under way for a long time
    changes: bool = False  # it changes what runs, so the client first checks which manager it has
    follows: bool = False  # called with `more`, it goes on until the caller hangs up

    @property
    def verb(self) -> str:
        """Its name as a verb of the command line: `restart-worker`."""
        return re.sub(r"\B(?=[A-Z])", "-", self.name.rpartition(".")[2]).lower()


STATUS = Method(name=f"{INTERFACE}.Status", ask=AskStatus, reply=Status, handler="counted_status")
HEALTH = Method(name=f"{INTERFACE}.Health", ask=AskHealth, reply=Health, handler="health")
RELOAD = Method(
    name=f"{INTERFACE}.Reload", ask=AskReload, reply=Reloaded, handler="reload",
    answer=lambda verdicts: Reloaded(verdicts=tuple(verdicts)),
    progress=lambda step: Reloaded(progress=step), waits=True, changes=True,
)  # fmt: skip
ROLLBACK = Method(
    name=f"{INTERFACE}.Rollback", ask=AskRollback, reply=Reloaded, handler="rollback",
    answer=lambda verdicts: Reloaded(verdicts=tuple(verdicts)),
    progress=lambda step: Reloaded(progress=step), waits=True, changes=True,
)  # fmt: skip
HISTORY = Method(
    name=f"{INTERFACE}.History", ask=AskHistory, reply=Remembered, handler="history",
    answer=lambda generations: Remembered(generations=generations),
)  # fmt: skip
PROMOTE = Method(
    name=f"{INTERFACE}.Promote", ask=AskPromote, reply=Reloaded, handler="promote",
    answer=lambda verdict: Reloaded(verdicts=(verdict,)), waits=True, changes=True,
)  # fmt: skip
ABORT = Method(
    name=f"{INTERFACE}.Abort", ask=AskAbort, reply=Reloaded, handler="abort",
    answer=lambda verdict: Reloaded(verdicts=(verdict,)), changes=True,
)  # fmt: skip
SCALE = Method(
    name=f"{INTERFACE}.Scale", ask=AskScale, reply=Scaled, handler="scale",
    answer=lambda workers: Scaled(workers=workers), waits=True, changes=True,
)  # fmt: skip
STOP = Method(
    name=f"{INTERFACE}.Stop", ask=AskStop, reply=Stopped, handler="stop",
    answer=lambda _: Stopped(), changes=True,
)  # fmt: skip
PLAN = Method(name=f"{INTERFACE}.Plan", ask=AskPlan, reply=Plan, handler="plan")
UPGRADE = Method(
    name=f"{INTERFACE}.Upgrade", ask=AskUpgrade, reply=Upgrading, handler="upgrade",
    answer=lambda version: Upgrading(version=version), changes=True,
)  # fmt: skip
LOGS = Method(name=f"{INTERFACE}.Logs", ask=AskLogs, reply=Logged, handler="logs", follows=True)
EVENTS = Method(
    name=f"{INTERFACE}.Events", ask=AskEvents, reply=Happened, handler="events", follows=True
)
RESTART_WORKER = Method(
    name=f"{INTERFACE}.RestartWorker", ask=AskRestartWorker, reply=Restarted,
    handler="restart_worker", answer=lambda successor: Restarted(successor=successor),
    waits=True, changes=True,
)  # fmt: skip

METHODS: dict[str, Method[Any, Any]] = {
    method.name: method
    for method in (
        Method(name=f"{SERVICE}.GetInfo", ask=GetInfo, reply=Info),
        Method(
            name=f"{SERVICE}.GetInterfaceDescription", ask=GetInterfaceDescription,
            reply=Description,
        ),
        STATUS, HEALTH, RELOAD, SCALE, STOP, PLAN, UPGRADE, LOGS, EVENTS, RESTART_WORKER,
        ROLLBACK, HISTORY, PROMOTE, ABORT,
    )
}  # fmt: skip
METHOD_OF: dict[type[Ask], Method[Any, Any]] = {one.ask: one for one in METHODS.values()}
CHANGING = tuple(one.verb for one in METHODS.values() if one.changes)  # what changes what runs
