"""What one value of the config may be, told twice: by a reader, and by a JSON Schema.

Both halves are made from the same bounds and patterns, so that an editor and `sockmgr check` agree.
Knows no key. Patterns hold to what ECMA-262, Rust and Python read alike: editors use all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sockmgr.config import document
from sockmgr.config.document import Value

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string", "pattern": r"^[^\x00]*$"}


@dataclass(frozen=True, slots=True)
class Shape:
    """`read` returns a value as what it means, or raises ConfigError; `schema` says what it may be.

    The schema refuses nothing that the reader takes. What only the reader can see (a soft limit
    above the hard one) is left to it.
    """

    read: Callable[[Value], Any]
    schema: Schema


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table: its shape, what it is about, and its default as it would be written.

    `about` is what an editor shows. None is for a default that cannot be written.
    """

    shape: Shape
    about: str
    default: Any = None

    def read(self, value: Value) -> Any:
        """Return what `value` means, or raise ConfigError."""
        return self.shape.read(value)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the key."""
        default = {} if self.default is None else {"default": self.default}
        return {"description": self.about, **self.shape.schema, **default}


Keys = Mapping[str, Key]


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
    """Return the shape of a whole number within these bounds."""
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


def table(keys: Keys, *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the JSON Schema of a table that has only these keys."""
    return {
        "type": "object",
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
        "properties": {name: key.schema() for name, key in keys.items()},
    }
