"""The interface io.sockmgr.Manager as types: its messages, calls, replies and errors.

The manager and its client share them; `io.sockmgr.Manager.varlink` says the same to all other
clients (https://varlink.org/Method-Call). Turns bytes into values and back; has no sockets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from sockmgr.api.types import Event, JournalPlace, LogLine, Plan, Progress, Status, Verdict
from sockmgr.errors import ConfigError, ControlError, ListenError, SockmgrError, SpawnError

INTERFACE = "io.sockmgr.Manager"
SERVICE = "org.varlink.service"
LONGEST_CALL = 64 * 1024  # bytes; the manager hangs up on what is longer

# --- Messages: what stands between two NUL bytes ------------------------------------------------


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call, as it travels."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    more: bool | None = None
    oneway: bool | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reply, as it travels."""

    parameters: msgspec.Raw = msgspec.Raw()
    continues: bool | None = None
    error: str | None = None


# --- Calls. What Varlink calls nullable may be left out or null ----------------------------------


class GetInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What program this is, and which interfaces it has."""


class GetInterfaceDescription(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """The description of one interface, as text."""

    interface: str


class AskStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs; `sizes` false: without the memory of workers, which takes longest."""

    sizes: bool | None = None


class AskReload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replace the workers of these services (none named: of all)."""

    services: tuple[str, ...] | None = None


class AskScale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Run this many workers, or so many more or fewer."""

    service: str
    workers: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
    relative: bool | None = None


class AskStop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Drain everything (`now`: kill it) and leave."""

    now: bool | None = None


class AskPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the config `text` of `file` would change (none given: what a reload would)."""

    text: str | None = None
    file: str | None = None


class AskLogs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last `lines` of the log, of all or of one service; with `more` also each new line."""

    service: str | None = None
    lines: Annotated[int, msgspec.Meta(ge=0)] | None = None


class AskEvents(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `last` events of all or of one service, or those `after` an id; with `more` new ones."""

    service: str | None = None
    after: int | None = None
    last: Annotated[int, msgspec.Meta(ge=0)] | None = None


class AskRestartWorker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replace one worker (`web@7.2`) by another of its generation."""

    worker: str


class AskUpgrade(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replace the manager's own code."""


Ask = (
    GetInfo | GetInterfaceDescription | AskStatus | AskReload | AskScale | AskStop | AskPlan
    | AskUpgrade | AskLogs | AskEvents | AskRestartWorker
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


class Reloaded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reply to Reload: with `more` any number of `progress`, then the `verdicts`."""

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
    """Reply to Logs: lines, and how many before them were missed; or where the lines are."""

    lines: tuple[LogLine, ...] | None = None
    missed: int | None = None
    journal: JournalPlace | None = None

    @property
    def tells(self) -> bool:
        """Whether there is anything new in it."""
        return bool(self.lines or self.missed)


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to Events: `missed` tells whether others, before these, are gone.

    `newest` is the id to go on after.
    """

    events: tuple[Event, ...]
    missed: bool
    newest: int

    @property
    def tells(self) -> bool:
        """Whether there is anything new in it."""
        return bool(self.events or self.missed)


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """Reply to RestartWorker: the worker that replaced it, "" if none was needed."""

    successor: str


Answer = (
    Info | Description | Status | Reloaded | Scaled | Stopped | Plan | Upgrading | Logged | Happened
    | Restarted
)  # fmt: skip

# --- Methods -------------------------------------------------------------------------------------

_AskT = TypeVar("_AskT", bound=Ask)
_AnswerT = TypeVar("_AnswerT", bound=Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[_AskT, _AnswerT]):
    """One method of an interface: all that the server and the client need to know about it.

    The server calls the method `handler` of the manager with those parameters that the caller gave,
    by name, so what Varlink calls nullable has a default there; `answer` makes the reply of what
    that returns. Without a `handler`, the server itself answers.
    """

    name: str
    ask: type[_AskT]
    reply: type[_AnswerT]
    handler: str = ""
    answer: Callable[[Any], _AnswerT] | None = None  # None: the handler returns the reply itself
    progress: Callable[[Progress], _AnswerT] | None = None  # the reply that reports one step
    waits: bool = False  # for workers, so that many of these calls may be under way for long
    changes: bool = False  # what runs, so that it is only asked of a manager that is meant
    follows: bool = False  # called with `more`, it goes on for as long as the caller stays


STATUS = Method(name=f"{INTERFACE}.Status", ask=AskStatus, reply=Status, handler="status")
RELOAD = Method(
    name=f"{INTERFACE}.Reload", ask=AskReload, reply=Reloaded, handler="reload",
    answer=lambda verdicts: Reloaded(verdicts=tuple(verdicts)),
    progress=lambda step: Reloaded(progress=step), waits=True, changes=True,
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
        STATUS, RELOAD, SCALE, STOP, PLAN, UPGRADE, LOGS, EVENTS, RESTART_WORKER,
    )
}  # fmt: skip
_METHOD_OF: dict[type[Ask], Method[Any, Any]] = {one.ask: one for one in METHODS.values()}


def changes(verb: str) -> bool:
    """Tell whether the method that a command is named after (`restart-worker`) changes anything."""
    method = METHODS.get(f"{INTERFACE}.{verb.title().replace('-', '')}")
    return method is not None and method.changes


# --- Errors --------------------------------------------------------------------------------------


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of every error of our interface: those of SockmgrError."""

    what: str
    means: str = ""
    do: str = ""


class Unanswerable(Exception):
    """A call that gets an error of the protocol itself, as its method or parameters are wrong."""

    def __init__(self, name: str, **parameters: str) -> None:
        super().__init__(name)
        self.name = f"{SERVICE}.{name}"
        self.parameters = parameters


# From the most special kind to the most general: the first that fits names the error.
ERRORS: dict[str, type[SockmgrError]] = {
    f"{INTERFACE}.InvalidConfig": ConfigError,
    f"{INTERFACE}.ListenFailed": ListenError,
    f"{INTERFACE}.SpawnFailed": SpawnError,
    f"{INTERFACE}.Refused": ControlError,
    f"{INTERFACE}.Failed": SockmgrError,
}

# --- Reading and writing -------------------------------------------------------------------------

encode = msgspec.json.Encoder().encode
_decode_call = msgspec.json.Decoder(Call).decode


def read_call(data: bytes) -> Call | None:
    """Return the call that `data` is, or None if it is no call at all."""
    try:
        return _decode_call(data)
    except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError are ValueErrors
        return None


def read_ask(call: Call) -> tuple[Method[Any, Any], Ask]:
    """Return which method `call` is of, and what it asks; raise Unanswerable if that is wrong."""
    method = METHODS.get(call.method)
    if method is None:
        interface = call.method.rpartition(".")[0]
        if interface in (SERVICE, INTERFACE):
            raise Unanswerable("MethodNotFound", method=call.method)
        raise Unanswerable("InterfaceNotFound", interface=interface)
    data = bytes(call.parameters)
    try:
        ask: Ask = msgspec.json.decode(b"{}" if data == b"null" else data, type=method.ask)
    except msgspec.ValidationError as error:
        # "Expected `int`, got `str` - at `$.workers`", "Object missing required field `service`"
        found = re.search(r"at `\$\.(\w+)|field `(\w+)`", str(error))
        name = (found[1] or found[2]) if found else "parameters"
    except (ValueError, RecursionError):
        name = "parameters"
    else:
        return method, ask
    raise Unanswerable("InvalidParameter", parameter=name)


def write_call(ask: Ask, *, more: bool | None = None) -> bytes:
    """Return the message that asks this."""
    return encode(Call(method=_METHOD_OF[type(ask)].name, parameters=_raw(ask), more=more)) + b"\0"


def write_reply(answer: Answer, *, continues: bool | None = None) -> bytes:
    """Return the message that gives this answer."""
    reply = Reply(parameters=_raw(answer), continues=continues)
    return encode(reply) + b"\0"


def write_error(error: SockmgrError | Unanswerable) -> bytes:
    """Return the message that gives this error."""
    if isinstance(error, Unanswerable):
        return encode(Reply(error=error.name, parameters=_raw(error.parameters))) + b"\0"
    name = next(name for name, kind in ERRORS.items() if isinstance(error, kind))
    failure = Failure(what=error.what, means=error.means, do=error.do)
    return encode(Reply(error=name, parameters=_raw(failure))) + b"\0"


def _raw(value: object) -> msgspec.Raw:
    try:
        return msgspec.Raw(encode(value))
    except UnicodeEncodeError:  # it holds a path that is not UTF-8, as os.fsdecode() gives it
        plain = json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
        return msgspec.Raw(plain.encode(errors="replace"))
