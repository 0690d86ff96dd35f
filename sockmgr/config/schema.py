"""The JSON Schema of a config (draft 2020-12), made of the tables of keys that parse() reads.

It describes each value and each table by itself. Only parse() checks how keys of different tables
go together (a listener that no service uses). Keeps to what validators of older drafts understand.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sockmgr.config import placeholder, settings, shape, values
from sockmgr.config.manager_keys import NAMED, TOP

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLES = {"type": "string", "pattern": r"\$\{"}  # ${NAME}, whatever it stands for
_EITHER = [{"required": [key]} for key in ("command", "app")]


def schema() -> dict[str, Any]:
    top = shape.table(TOP, required=("service",))
    free = {"maxLength": 64, "not": {"enum": [placeholder.SLOT]}}
    top["properties"] |= {
        "listen": _about("listen", _free(_listener(), f"^{placeholder.NAME}$", **free)),
        "service": _about(
            "service",
            _free(shape.table(settings.SERVICE) | {"oneOf": _EITHER}, values.NAME.schema["pattern"])
            | {"minProperties": 1},
        ),
    }
    whole = _open(top)
    # Where no variables are filled in.
    whole["properties"]["name"] = TOP["name"].schema()
    return {"$schema": DIALECT, "title": "sockmgr.toml", **whole}


def _open(part: dict[str, Any]) -> dict[str, Any]:
    """Return a schema in which a text with variables may stand for any value that is no table."""
    if "enum" in part or part.get("type", "object") not in ("object", "array"):
        rest = {key: part[key] for key in part if key not in ("description", "default")}
        return {k: part[k] for k in part if k not in rest} | {"anyOf": [rest, _VARIABLES]}
    opened = dict(part)
    for key in ("additionalProperties", "items"):
        if isinstance(part.get(key), dict):
            opened[key] = _open(part[key])
    for key in ("anyOf", "prefixItems"):
        if key in part:
            opened[key] = list(map(_open, part[key]))
    if "properties" in part:
        opened["properties"] = {name: _open(one) for name, one in part["properties"].items()}
    return opened


def _about(table: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": NAMED[table], **content}


def _free(entry: dict[str, Any], pattern: str, **bounds: Any) -> dict[str, Any]:
    """Return the schema of a table whose keys are names that a person chose."""
    return {
        "type": "object",
        "propertyNames": {"pattern": pattern, **bounds},
        "additionalProperties": entry,
    }


def _listener() -> dict[str, Any]:
    table = {
        **shape.table(settings.LISTENER, required=("address",)),
        "allOf": [_only("^unix:", settings.UNIX_ONLY), _only("^tcp:", settings.TCP_ONLY)],
    }
    return {"anyOf": [settings.LISTENER["address"].schema(), table]}


def _only(scheme: str, keys: Iterable[str]) -> dict[str, Any]:
    """Return the schema of a listener that has these keys only at addresses of a scheme."""
    known = {"properties": {"address": {"pattern": rf"{scheme}|\$\{{"}}}
    return {"if": known, "else": {"properties": dict.fromkeys(keys, False)}}
