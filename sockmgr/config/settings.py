"""The keys of the config, table by table: what each may be, is about, and is by default.

A key is added here: its Key is how config.py reads it and what the JSON Schema says of it. What
keys mean for each other is config.py's.
"""

from __future__ import annotations

from typing import Any

from sockmgr.config import app_keys, shape, values
from sockmgr.config.document import Value
from sockmgr.config.shape import BOOLEAN, DURATION, TEXTS, TIMEOUT, Key, Shape, integer
from sockmgr.config.spec import Accepting, Delay, Exec, Notify, Ready, Rollout

# --- Readers -----------------------------------------------------------------------------------


def _ready(value: Value) -> Ready:
    allowed = '"accepting", "notify", { delay = "2s" } or { exec = ["COMMAND", ...] }'
    if value.raw == "accepting":
        return Accepting()
    if value.raw == "notify":
        return Notify()
    if not isinstance(value.raw, dict) or len(value.raw) != 1:
        raise value.wrong(allowed)
    planned = {"http": f"allowed: {allowed}"}
    ((kind, argument),) = value.table(READY, planned).items()
    if kind == "delay":
        return Delay(seconds=READY[kind].read(argument))
    return Exec(argv=READY[kind].read(argument))


def _rollout(value: Value) -> Rollout:
    planned = {"canary": "remove it; surge, probation and max_failed_starts are what there is"}
    keys = value.table(ROLLOUT, planned)
    fields: dict[str, Any] = {"start_concurrency": 0}
    fields |= {key: ROLLOUT[key].read(entry) for key, entry in keys.items()}
    return Rollout(**fields)


# --- Tables ------------------------------------------------------------------------------------

READY = {
    "delay": Key(DURATION, "Ready when this much time has passed and it lives: a guess."),
    "exec": Key(
        values.COMMAND, "Ready when this command exits with 0; it is tried again until it does."
    ),
}
_READY = Shape(
    _ready,
    {
        "anyOf": [
            {"enum": ["accepting", "notify"]},
            {**shape.table(READY), "minProperties": 1, "maxProperties": 1},
        ]
    },
)
ROLLOUT = {
    "surge": Key(
        values.SURGE,
        "How many workers more than wanted a reload may run: all (every new one beside the old, "
        "one instant of cut-over), a number, or a share such as 25% (less memory, but both "
        "versions serve for a while).",
        "all",
    ),
    "probation": Key(
        DURATION,
        "How long after the cut-over a death still takes the reload back; 10 s by default where "
        "there are no listeners and ready is a delay.",
        0.25,
    ),
    "max_failed_starts": Key(
        integer(1, 1000), "So many workers may fail to start before the reload aborts.", 3
    ),
    "start_concurrency": Key(
        integer(0, values.MAX_WORKERS),
        "How many workers boot at a time; 0: twice as many as there are cores.",
        0,
    ),
    "max_draining": Key(
        integer(1, 100),
        "At most so many old generations finish their work; the oldest beyond that has 5 s.",
        4,
    ),
    "exclusive": Key(
        BOOLEAN,
        "Stop the old before the new is started, for what must not run twice. Connections wait "
        "meanwhile.",
        False,
    ),
}
_ROLLOUT = Shape(_rollout, shape.table(ROLLOUT))

SERVICE = {
    "command": Key(
        values.COMMAND,
        "The program and its arguments. {http} becomes the descriptor number of listener http; "
        "a command that names no listener gets LISTEN_FDS, as from systemd.",
    ),
    "app": Key(
        app_keys.APP,
        "An ASGI or WSGI application instead of a command: sockmgr's own runtime serves it, and "
        "loses no request in a reload. module:attribute, or module:factory().",
    ),
    "python": Key(
        shape.text("a Python interpreter", r"[^\x00]+"),
        "The interpreter that runs `app`, as seen from cwd: that of a virtual environment in which "
        "sockmgr is installed, too. By default that of the manager.",
    ),
    "interface": Key(
        app_keys.INTERFACE, "What `app` is: asgi or wsgi; by default seen by what it takes."
    ),
    "http": Key(app_keys.HTTP_SHAPE, "How `app` is served."),
    "preload": Key(
        BOOLEAN,
        "Whether `app` is imported once for all workers of a generation, which then share its "
        "memory and start at once. Its import must start no thread, process or event loop, and "
        "leave no connection open.",
        False,
    ),
    "listen": Key(
        values.LISTEN,
        "Names from [listen], in the order in which they are passed; [] for none. All of them, "
        "if there is one service.",
    ),
    "workers": Key(integer(1, values.MAX_WORKERS), "How many processes.", 1),
    "cwd": Key(
        shape.text("a directory", r"[^\x00]+"),
        "Working directory, relative to this file. Its real path is taken at each reload, so a "
        "generation stays in its own release when a symbolic link moves.",
    ),
    "env": Key(values.ENV, "Variables added for the workers, as texts.", {}),
    "inherit_env": Key(
        BOOLEAN, "Whether workers also get the environment of the manager itself.", True
    ),
    "umask": Key(values.OCTAL, "Of the workers: octal, in quotes, such as 022."),
    "user": Key(
        values.ACCOUNT, "Who the workers run as: a name, or a number in quotes. Needs root."
    ),
    "group": Key(values.ACCOUNT, "And their group."),
    "limits": Key(
        values.LIMITS,
        "Resource limits, as in setrlimit(2): a number, a size such as 1G, unlimited, or an array "
        "of soft and hard limit.",
        {},
    ),
    "listen_pid": Key(
        BOOLEAN,
        "Whether LISTEN_PID is set; false for wrappers that start the server as a child.",
        True,
    ),
    "ready": Key(
        _READY,
        "How a worker is known to be ready: accepting (the kernel shows it waiting for connections "
        "on each listener), notify (it says READY=1, sd_notify(3)), a delay, or a command. "
        "A delay of 1 s without listeners, and notify for `app`.",
        "accepting",
    ),
    "ready_timeout": Key(
        TIMEOUT, "A worker not ready by then is killed; in a reload that aborts it.", "60s"
    ),
    "stop_signal": Key(
        values.SIGNAL, "What asks a worker to finish: that of the preset, or TERM, if not given."
    ),
    "drain_timeout": Key(
        DURATION,
        "How long a worker may take to finish before its process group is killed; 0 kills at once.",
        "30s",
    ),
    "max_age": Key(TIMEOUT, "Replace a worker that has served this long, successor first."),
    "hang_timeout": Key(
        DURATION,
        "Replace a worker that gives no sign of life for this long, after its stacks were printed "
        "to the log; 0 never does. 60 s for `app`; a command has to call "
        "sockmgr.worker.watchdog(), and is not looked at unless this is given.",
    ),
    "accept": Key(
        values.ACCEPT,
        "shared: the workers of a generation share one queue, and whoever is free takes the next "
        "connection. per-worker: each has its own queue and gets as many as the others, which is "
        "better for connections that last. dispatch: the manager accepts and passes each "
        "connection to a worker, which must know how to take it, as one of `app` does: "
        "dispatch-protocol.md.",
        "shared",
    ),
    "policy": Key(
        values.POLICY,
        "With dispatch: pass a connection to each worker in turn, or to the one that has fewest.",
        "round-robin",
    ),
    "max_connections": Key(
        integer(1, 2**31 - 1),
        "With dispatch: a worker that has so many open gets no more; when all have, the rest waits "
        "in the kernel's queue. No limit if not given.",
    ),
    "preset": Key(
        values.PRESET,
        "What is assumed of the program: auto (by its name), none, or the rules of one server.",
        "auto",
    ),
    "rollout": Key(_ROLLOUT, "How one generation of workers replaces another."),
}
PLANNED = {
    "max_rss": "remove it; max_age replaces workers by age",
}
LISTENER = {
    "address": Key(
        values.ADDRESS,
        "tcp://127.0.0.1:8000, tcp://[::1]:8000, udp://127.0.0.1:5353, unix:///run/shop.sock, "
        "unix-abstract:shop or fd://3. Port 0: the kernel chooses one.",
    ),
    "backlog": Key(
        integer(1, 2**31 - 1),
        "How many connections may wait; the kernel caps it at net.core.somaxconn.",
        4096,
    ),
    "mode": Key(values.OCTAL, "Mode of a unix path: octal, in quotes, such as 0660."),
    "user": Key(values.ACCOUNT, "Owner of a unix path: a name, or a number in quotes."),
    "group": Key(values.ACCOUNT, "Group of a unix path."),
}
UNIX_ONLY = ("mode", "user", "group")
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
TOP = {
    "name": Key(
        values.NAME, "The name of this manager; part of the path of its control socket.", "sockmgr"
    ),
}
TABLES = {
    "listen": "The listeners: NAME = ADDRESS, or a table. Each belongs to exactly one service.",
    "service": "The services: a table for each, [service.NAME].",
    "dev": "What `sockmgr dev` watches, and what it shows.",
}
