"""The keys of [control]: who else may talk to the manager, and what they may ask. Pure."""

from __future__ import annotations

import msgspec

from sockmgr.api.varlink import CHANGING
from sockmgr.config import values
from sockmgr.config.document import Value
from sockmgr.config.shape import Key, Shape, read


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """The groups beside root and the manager's own user; members of `readers` may only look.

    Those of `group` may call all `methods` (None: every one). `mode` None: by who is to connect.
    """

    group: str = ""
    mode: int | None = None
    readers: str = ""
    methods: tuple[str, ...] | None = None


def _methods(value: Value) -> tuple[str, ...]:
    for item in value.items("an array"):
        if item.raw not in CHANGING:
            raise item.wrong(f"{', '.join(CHANGING)}; who may connect may look")
    return value.texts()


KEYS = {
    "group": Key(values.ACCOUNT, "A group whose members may talk to the manager, as its user may."),
    "mode": Key(
        values.OCTAL, "Mode of the socket: 0660 by default, 0666 if both groups are given."
    ),
    "readers": Key(values.ACCOUNT, "A group whose members may look, and change nothing."),
    "methods": Key(
        Shape(_methods, {"type": "array", "items": {"enum": list(CHANGING)}}),
        "What members of `group` may do beside looking; everything if not given.",
    ),
}


def control(table: Value) -> Control:
    """Return what the table says; raise ConfigError, also if it keeps out whom it names."""
    keys = table.table(KEYS)
    found = Control(**read(KEYS, keys))
    if found.methods is not None and not found.group:
        raise keys["methods"].refused("is for the members of a group", do="add group")
    if found.group and found.group == found.readers:
        raise keys["readers"].refused("is the group that may do more", do="remove one of them")
    # A node has one group. Of two, the members of the other one are others to it.
    needed = 0o022 if found.group and found.readers else 0o020
    if found.mode is not None and found.mode & needed != needed:
        raise keys["mode"].wrong(
            f'what lets all named connect, that is write: "{needed | 0o640:04o}"'
        )
    return found
