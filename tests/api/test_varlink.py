"""The .varlink file and the code say the same."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest

from sockmgr.api import types, varlink

MANAGER = varlink.INTERFACE
SERVICE = varlink.SERVICE


def description(interface: str = MANAGER) -> str:
    file = Path(varlink.__file__).with_name(f"{interface}.varlink")
    return re.sub(r"#.*", "", file.read_text())


def fields_in_text(body: str) -> dict[str, str]:
    pairs = re.findall(r"(\w+)\s*:\s*((?:\([^()]*\)|[^,()])+)", body)
    return {name: re.sub(r"\s", "", kind) for name, kind in pairs}


def fields_in_code(struct: type[msgspec.Struct]) -> dict[str, str]:
    hints = get_type_hints(struct)
    return {field: varlink_type(hints[field]) for field in struct.__struct_fields__}


def varlink_type(kind: Any) -> str:
    simple = {int: "int", float: "float", str: "string", bool: "bool"}
    if kind in simple:
        return simple[kind]
    arguments = get_args(kind)
    if type(None) in arguments:
        return "?" + varlink_type(arguments[0])
    if get_origin(kind) is tuple:
        return "[]" + varlink_type(arguments[0])
    if get_origin(kind) is dict:
        return "[string]" + varlink_type(arguments[1])
    if get_origin(kind) is Literal:
        return f"({','.join(arguments)})"
    if issubclass(kind, StrEnum):
        return f"({','.join(kind)})"
    assert issubclass(kind, msgspec.Struct), kind
    return str(kind.__name__)


REPLIES: dict[type[msgspec.Struct], type[msgspec.Struct]] = {
    varlink.AskStatus: types.Status,
    varlink.AskReload: varlink.Reloaded,
    varlink.AskScale: varlink.Scaled,
    varlink.AskStop: varlink.Stopped,
    varlink.AskPlan: types.Plan,
    varlink.AskUpgrade: varlink.Upgrading,
    varlink.AskLogs: varlink.Logged,
    varlink.AskEvents: varlink.Happened,
    varlink.AskRestartWorker: varlink.Restarted,
    varlink.GetInfo: varlink.Info,
    varlink.GetInterfaceDescription: varlink.Description,
}


@pytest.mark.parametrize("interface", [MANAGER, SERVICE])
def test_the_methods_of_the_varlink_file_are_those_of_the_code(interface: str) -> None:
    found = re.findall(r"method (\w+)\s*\(([^)]*)\)\s*->\s*\(([^)]*)\)", description(interface))
    described = {
        f"{interface}.{name}": (fields_in_text(call), fields_in_text(reply))
        for name, call, reply in found
    }
    coded = {
        name: (fields_in_code(ask), fields_in_code(REPLIES[ask]))
        for name, ask in varlink.METHODS.items()
        if name.startswith(f"{interface}.")
    }
    assert described == coded


def test_the_types_of_the_varlink_file_are_those_of_the_code() -> None:
    found = re.findall(r"^type (\w+)\s*\(\n(.*?)\n\)", description(), re.MULTILINE | re.DOTALL)
    assert len(found) == 13
    for name, body in found:
        assert fields_in_text(body) == fields_in_code(getattr(types, name)), name


def test_the_errors_of_the_varlink_file_are_those_of_the_code() -> None:
    found = re.findall(r"^error (\w+)\s*\(([^)]*)\)", description(), re.MULTILINE)
    assert {f"{MANAGER}.{name}" for name, _ in found} == set(varlink.ERRORS)
    for _, body in found:
        assert fields_in_text(body) == fields_in_code(varlink.Failure)
