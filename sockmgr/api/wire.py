"""The messages of Varlink: bytes made into calls, and replies and errors made into bytes.

Knows the methods of varlink.py; has no sockets (https://varlink.org/Method-Call).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from sockmgr.api.varlink import INTERFACE, METHOD_OF, METHODS, SERVICE, Answer, Ask, Method
from sockmgr.errors import ConfigError, ControlError, ListenError, SockmgrError, SpawnError

# --- Messages: each is JSON, ended by a NUL byte ------------------------------------------------


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    more: bool | None = None
    oneway: bool | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    parameters: msgspec.Raw = msgspec.Raw()
    continues: bool | None = None
    error: str | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of every error of our interface: the three texts of a SockmgrError."""

    what: str
    means: str = ""
    do: str = ""


class Unanswerable(Exception):
    """The method or the parameters of a call are wrong; answered by an error of Varlink itself."""

    def __init__(self, name: str, **parameters: str) -> None:
        super().__init__(name)
        self.name = f"{SERVICE}.{name}"
        self.parameters = parameters


# From the most special kind to the most general: the first kind that fits an error names it.
ERRORS: dict[str, type[SockmgrError]] = {
    f"{INTERFACE}.InvalidConfig": ConfigError,
    f"{INTERFACE}.ListenFailed": ListenError,
    f"{INTERFACE}.SpawnFailed": SpawnError,
    f"{INTERFACE}.Refused": ControlError,
    f"{INTERFACE}.Failed": SockmgrError,
}

# --- Reading and writing -------------------------------------------------------------------------

encode = msgspec.json.Encoder().encode
# Of bytes that are not what they should be. ValueError: not UTF-8; msgspec's own errors are no
# ValueErrors before 0.21.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_decode_call = msgspec.json.Decoder(Call).decode


def read_call(data: bytes) -> Call | None:
    """Return the call that `data` encodes, or None if it encodes no call at all."""
    try:
        return _decode_call(data)
    except UNREADABLE:
        return None


def read_ask(call: Call) -> tuple[Method[Any, Any], Ask]:
    """Return the method that `call` names, and its parameters; raise Unanswerable."""
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
    except UNREADABLE:
        name = "parameters"
    else:
        return method, ask
    raise Unanswerable("InvalidParameter", parameter=name)


def write_call(ask: Ask, *, more: bool | None = None) -> bytes:
    """Return the message of a call with the parameters `ask`."""
    return encode(Call(method=METHOD_OF[type(ask)].name, parameters=_raw(ask), more=more)) + b"\0"


def write_reply(answer: Answer, *, continues: bool | None = None) -> bytes:
    """Return the message of a reply with the parameters `answer`."""
    reply = Reply(parameters=_raw(answer), continues=continues)
    return encode(reply) + b"\0"


def write_error(error: SockmgrError | Unanswerable) -> bytes:
    """Return the message of a reply that reports `error`."""
    if isinstance(error, Unanswerable):
        return encode(Reply(error=error.name, parameters=_raw(error.parameters))) + b"\0"
    name = next(name for name, kind in ERRORS.items() if isinstance(error, kind))
    failure = Failure(what=error.what, means=error.means, do=error.do)
    return encode(Reply(error=name, parameters=_raw(failure))) + b"\0"


def _raw(value: object) -> msgspec.Raw:
    try:
        return msgspec.Raw(encode(value))
    except UnicodeEncodeError:  # it has a path that is not UTF-8, decoded by os.fsdecode()
        import json  # noqa: PLC0415 - verbs load faster without it, and few paths are like that

        plain = json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
        return msgspec.Raw(plain.encode(errors="replace"))
