"""The JSON Schema of a config (draft 2020-12), made of the tables of keys that parse() reads.

It tells each value and each table by itself; how keys of different tables go together (a listener
that no service uses) only parse() sees. Kept to what validators of older drafts know as well.
"""

from __future__ import annotations

from typing import Any

from sockmgr.config import placeholder, settings, shape, values

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_EITHER = [{"required": [key]} for key in ("command", "app")]
FILE = "sockmgr.schema.json"


def schema() -> dict[str, Any]:
    """Return the schema, as JSON would hold it."""
    top = shape.table(settings.TOP, required=("service",))
    top["properties"] |= {
        "listen": _about("listen", _free(_listener(), f"^{placeholder.NAME}$", maxLength=64)),
        "service": _about(
            "service",
            _free(
                shape.table(settings.SERVICE) | {"oneOf": _EITHER},
                values.NAME.schema["pattern"],
            )
            | {"minProperties": 1},
        ),
        "dev": _about("dev", shape.table(settings.DEV)),
    }
    return {"$schema": DIALECT, "title": "sockmgr.toml", **top}


def _about(table: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": settings.TABLES[table], **content}


def _free(entry: dict[str, Any], pattern: str, **bounds: int) -> dict[str, Any]:
    """Return the schema of a table whose keys are names that a person chose."""
    return {
        "type": "object",
        "propertyNames": {"pattern": pattern, **bounds},
        "additionalProperties": entry,
    }


def _listener() -> dict[str, Any]:
    unix = {"properties": {"address": {"pattern": "^unix:"}}}
    table = {
        **shape.table(settings.LISTENER, required=("address",)),
        "if": unix,
        "else": {"properties": dict.fromkeys(settings.UNIX_ONLY, False)},
    }
    return {"anyOf": [settings.LISTENER["address"].schema(), table]}
