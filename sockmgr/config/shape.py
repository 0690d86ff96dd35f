"""Shapes: what one value of the config may be, both as a reader and as a JSON Schema.

Both are made of the same bounds and patterns, so that an editor and `sockmgr check` agree. Knows no
key. Patterns use only what ECMA-262, Rust and Python understand alike, because editors use all
three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sockmgr.config import document
from sockmgr.config.document import Value

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string", "pattern": r"^[^\x00]*$"}


@dataclass(frozen=True, slots=True)
class Shape:
    """`read` converts a value or raises ConfigError; `schema` describes the values it accepts.

    The schema accepts everything that the reader accepts, and a little more: it cannot see that a
    soft limit is above the hard one, for example.
    """

    read: Callable[[Value], Any]
    schema: Schema


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table: its shape, its description, and its default.

    Editors show `about`. The default is as it would be written in a config; None if it cannot be.
    """

    shape: Shape
    about: str
    default: Any = None

    def read(self, value: Value) -> Any:
        """Convert `value`, or raise ConfigError."""
        return self.shape.read(value)

    def schema(self) -> dict[str, Any]:
        default = {} if self.default is None else {"default": self.default}
        return {"description": self.about, **self.shape.schema, **default}


Keys = Mapping[str, Key]


def read(known: Keys, given: Mapping[str, Value]) -> dict[str, Any]:
    """Return the given values, converted, in the order of the `known` keys."""
    return {name: key.read(given[name]) for name, key in known.items() if name in given}


def fields(known: Keys, value: Value) -> dict[str, Any]:
    """Return what a table says that may have only the `known` keys, converted."""
    return read(known, value.table(known))


def _seconds(least: float) -> Schema:
    return {
        "type": ["number", "string"],
        "minimum": least,
        "maximum": document.LONGEST,
        "pattern": f"^{document.DURATION_PATTERN}$",
    }


BOOLEAN = Shape(Value.boolean, {"type": "boolean"})
TEXTS = Shape(Value.texts, {"type": "array", "items": TEXT})
DURATION = Shape(Value.seconds, _seconds(0))
TIMEOUT = Shape(
    lambda value: value.seconds(zero=False),
    {**_seconds(document.SHORTEST), "allOf": [{"pattern": "[1-9]"}]},
)
SIZE = Shape(
    Value.size,
    {
        "type": ["integer", "string"],
        "minimum": 0,
        "maximum": document.LARGEST,
        "pattern": f"^(?:{document.SIZE_PATTERN}|unlimited)$",
    },
)


def integer(minimum: int, maximum: int) -> Shape:
    return Shape(
        lambda value: value.integer(minimum, maximum),
        {"type": "integer", "minimum": minimum, "maximum": maximum},
    )


def text(allowed: str, pattern: str) -> Shape:
    """Return the shape of a text that `pattern` matches as a whole; `allowed` says it in words."""
    return Shape(
        lambda value: value.text(allowed, pattern),
        {"type": "string", "pattern": f"^(?:{pattern})$"},
    )


def array_of(item: Shape, allowed: str) -> Shape:
    """Return the shape of an array of such items; `allowed` says it in words."""
    return Shape(
        lambda value: tuple(map(item.read, value.items(allowed))),
        {"type": "array", "items": item.schema},
    )


def one_of(words: Iterable[str], into: Callable[[str], Any] = str) -> Shape:
    """Return the shape of one of these words, of which `into` makes the value."""
    known = list(map(str, words))

    def read(value: Value) -> Any:
        if value.raw not in known:
            raise value.wrong(", ".join(f'"{word}"' for word in known))
        return into(value.text())

    return Shape(read, {"enum": known})


def made_of(make: Callable[..., Any], keys: Keys) -> Shape:
    """Return the shape of a table of these keys, of whose values `make` makes one."""
    return Shape(lambda value: make(**fields(keys, value)), table(keys))


def table(keys: Keys, *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the JSON Schema of a table that has only these keys."""
    return closed({name: key.schema() for name, key in keys.items()}, required)


def closed(properties: Mapping[str, Schema], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the JSON Schema of an object that has only these properties."""
    needs = {"required": list(required)} if required else {}
    return {"type": "object", "additionalProperties": False, **needs, "properties": properties}
