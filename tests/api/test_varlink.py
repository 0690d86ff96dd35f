"""The .varlink file and the code say the same."""

from __future__ import annotations

import inspect
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest

from sockmgr.api import figures, types, varlink, wire
from sockmgr.manager.manager import Manager
from tests.helpers.fake_manager import FakeManager

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


@pytest.mark.parametrize("interface", [MANAGER, SERVICE])
def test_the_methods_of_the_varlink_file_are_those_of_the_code(interface: str) -> None:
    found = re.findall(r"method (\w+)\s*\(([^)]*)\)\s*->\s*\(([^)]*)\)", description(interface))
    described = {
        f"{interface}.{name}": (fields_in_text(call), fields_in_text(reply))
        for name, call, reply in found
    }
    coded = {
        name: (fields_in_code(method.ask), fields_in_code(method.reply))
        for name, method in varlink.METHODS.items()
        if name.startswith(f"{interface}.")
    }
    assert described == coded


def parameters_of(function: Any) -> dict[str, tuple[Any, bool]]:
    """Return the type of each parameter, and whether a caller may leave it out."""
    hints = get_type_hints(function)
    return {
        parameter.name: (hints[parameter.name], parameter.default is not parameter.empty)
        for parameter in list(inspect.signature(function).parameters.values())[1:]
    }


@pytest.mark.parametrize("handler", [Manager, FakeManager])
@pytest.mark.parametrize("method", [m for m in varlink.METHODS.values() if m.handler])
def test_the_manager_takes_what_a_method_asks_with_the_same_names_and_types(
    method: varlink.Method[Any, Any], handler: type
) -> None:
    function = getattr(handler, method.handler)
    taken = parameters_of(function)
    if method.progress:
        assert taken.pop("progress")[1]
    hints = get_type_hints(method.ask)
    for field in msgspec.structs.fields(method.ask):
        kind, may_be_left_out = taken.pop(field.name)
        assert may_be_left_out or field.required
        asked = [one for one in get_args(hints[field.name]) if one is not type(None)]
        assert kind in (hints[field.name], *asked)
    assert not taken
    if not method.answer and not method.follows:
        assert get_type_hints(function)["return"] is method.reply


def test_the_commands_that_change_something_are_those_of_the_methods_that_do() -> None:
    changing = ["reload", "scale", "restart-worker", "stop", "upgrade", "promote", "abort"]
    assert {*changing, "rollback"} == set(varlink.CHANGING)


def test_the_types_of_the_varlink_file_are_those_of_the_code() -> None:
    found = re.findall(r"^type (\w+)\s*\(\n(.*?)\n\)", description(), re.MULTILINE | re.DOTALL)
    assert len(found) == 20
    known = vars(figures) | vars(types) | {"PastGeneration": varlink.PastGeneration}
    for name, body in found:
        assert fields_in_text(body) == fields_in_code(known[name]), name


def test_the_errors_of_the_varlink_file_are_those_of_the_code() -> None:
    found = re.findall(r"^error (\w+)\s*\(([^)]*)\)", description(), re.MULTILINE)
    assert {f"{MANAGER}.{name}" for name, _ in found} == set(wire.ERRORS)
    for _, body in found:
        assert fields_in_text(body) == fields_in_code(wire.Failure)
