"""The keys of [logs]: how what workers print reaches the manager's stdout and stderr. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sockmgr.config.document import Value
from sockmgr.config.shape import BOOLEAN, Key, one_of, read


class Format(StrEnum):
    """What a line of a worker becomes."""

    PREFIX = "prefix"
    RAW = "raw"
    JSON = "json"


class Logs(msgspec.Struct, frozen=True, kw_only=True):
    """`split`: what workers print on stdout goes to that of the manager, not to its stderr."""

    format: Format = Format.PREFIX
    split: bool = False


KEYS = {
    "format": Key(
        one_of(Format, Format),
        "prefix: the name of the worker before each line; json: each line an object; raw: workers "
        "have the manager's own stdout and stderr, and it sees nothing of what they print.",
        "prefix",
    ),
    "split": Key(BOOLEAN, "Whether stdout of workers goes to stdout, and not to stderr.", False),
}


def logs(table: Value) -> Logs:
    """Return what the table says; raise ConfigError."""
    keys = table.table(KEYS)
    found = Logs(**read(KEYS, keys))
    if found.format is Format.RAW and "split" in keys:
        raise keys["split"].refused("has no meaning: raw never joins the two", do="remove it")
    return found
