"""The keys about the manager as a whole: at the top, in [logs], [control], [dev] and [rollout]."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sockmgr.api.varlink import CHANGING
from sockmgr.config import shape, values
from sockmgr.config.document import Value
from sockmgr.config.shape import BOOLEAN, DURATION, TEXTS, Key, Shape, one_of

# --- [logs]: how what workers print reaches the manager's stdout and stderr ----------------------


class Format(StrEnum):
    """What a line of a worker becomes."""

    PREFIX = "prefix"
    RAW = "raw"
    JSON = "json"


class Logs(msgspec.Struct, frozen=True, kw_only=True):
    """`split`: what workers print on stdout goes to that of the manager, not to its stderr."""

    format: Format = Format.PREFIX
    split: bool = False


LOGS = {
    "format": Key(
        one_of(Format, Format),
        "prefix: the name of the worker before each line; json: each line an object; raw: workers "
        "have the manager's own stdout and stderr, and it sees nothing of what they print.",
        "prefix",
    ),
    "split": Key(BOOLEAN, "Whether stdout of workers goes to stdout, and not to stderr.", False),
}


def _logs(value: Value) -> Logs:
    found = Logs(**shape.fields(LOGS, value))
    if found.format is Format.RAW and "split" in (keys := value.entries()):
        raise keys["split"].refused("has no meaning: raw never joins the two", do="remove it")
    return found


_LOGS = Key(Shape(_logs, shape.table(LOGS)), "How what workers print is passed on.")

# --- [control]: who else may talk to the manager, and what they may ask -------------------------


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


CONTROL = {
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


def _control(value: Value) -> Control:
    """Read the table, and refuse one that keeps out whom it names."""
    keys = value.entries()
    found = Control(**shape.fields(CONTROL, value))
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


_CONTROL = Key(
    Shape(_control, shape.table(CONTROL)),
    "Who may talk to the manager beside its own user and root.",
)

# --- [dev] --------------------------------------------------------------------------------------


class Dev(msgspec.Struct, frozen=True, kw_only=True):
    """What `sockmgr dev` watches: directories, and patterns of file names to leave out or add.

    `error_page` None: for services that are known to speak HTTP, and clients on this machine only.
    `force_polling` None: where others may write to the file system, unseen by this kernel.
    """

    watch: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    error_page: bool | None = None
    livereload: bool = False
    force_polling: bool | None = None


DEV = {
    "watch": Key(TEXTS, "Directories to watch.", []),
    "ignore": Key(TEXTS, "Patterns of file names to leave out.", []),
    "include": Key(TEXTS, "Patterns of file names to add.", []),
    "error_page": Key(
        BOOLEAN,
        "Answer HTTP with the error while no code has served yet: by default to this machine, and "
        "for servers known to speak HTTP; true: to everyone, for all. false: requests wait.",
    ),
    "livereload": Key(
        BOOLEAN,
        "Serve a script, at the address in SOCKMGR_LIVERELOAD, by which pages load themselves anew "
        "when newer code serves.",
        False,
    ),
    "force_polling": Key(
        BOOLEAN,
        "Find edits by looking at all files regularly, and do not wait for the kernel to tell: by "
        "default where other machines or the host may write, as well. false: never.",
    ),
}
_DEV = Key(shape.made_of(Dev, DEV), "What `sockmgr dev` watches, and what it shows.")

# --- All ----------------------------------------------------------------------------------------

ROLLOUTS = {
    "together": Key(
        BOOLEAN,
        "Whether the services of one reload cut over when all of them are ready, and all go back "
        "if one fails.",
        False,
    ),
}
TOP = {
    "name": Key(
        values.NAME, "The name of this manager; part of the path of its control socket.", "sockmgr"
    ),
    "env_file": Key(
        values.ENV_FILE,
        "Files with variables for the workers of all services; those of a service count more.",
    ),
    "stop_delay": Key(
        DURATION,
        "Told to stop, say so (sockmgr health --ready, ready_file, systemd) and serve on for this "
        "long, so that balancers notice; only then take nobody new, and drain.",
        0.0,
    ),
    "ready_file": Key(
        shape.text("an absolute path", r"/[^\x00]*[^\x00/]"),
        "A file that is there while the manager wants new traffic: from when all services serve "
        "until it is told to stop.",
    ),
    "rollout": Key(shape.made_of(dict, ROLLOUTS), "How the services of one reload change over."),
    "logs": _LOGS,
    "control": _CONTROL,
    "dev": _DEV,
}
NAMED = {
    "listen": "The listeners: NAME = ADDRESS, or a table. Each belongs to exactly one service.",
    "service": "The services: a table for each, [service.NAME].",
}
