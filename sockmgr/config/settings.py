"""The keys of the config, table by table: the shape of each, its description and its default.

A new key is added here: config.py reads it by its Key, and the JSON Schema is made of it. How keys
go together is checked in config.py.
"""

from __future__ import annotations

import functools

from sockmgr.config import app_keys, canary_keys, probe_keys, shape, values
from sockmgr.config.document import Value
from sockmgr.config.hooks import Hook, Hooks
from sockmgr.config.resources import Resources
from sockmgr.config.shape import BOOLEAN, DURATION, TIMEOUT, Key, Shape, integer
from sockmgr.config.spec import Accepting, Delay, Exec, Notify, Ready, Rollout

# --- Readers -----------------------------------------------------------------------------------


def _ready(value: Value) -> Ready:
    allowed = (
        'one of "accepting", "notify", { http = "/path" }, { tcp = true }, { delay = "2s" } and '
        '{ exec = ["COMMAND", ...] }'
    )
    if value.raw == "accepting":
        return Accepting()
    if value.raw == "notify":
        return Notify()
    if isinstance(value.raw, dict) and "failures" in value.raw:
        raise value.entries()["failures"].refused(
            "is for healthy only: ready asks until ready_timeout", do="remove it"
        )
    keys = value.table(READY) if isinstance(value.raw, dict) else {}
    if len(keys.keys() & set(_KINDS)) != 1:
        raise value.wrong(allowed)
    if "accepting" in keys and "exec" not in keys:
        raise keys["accepting"].refused("has a meaning beside exec only", do="remove it")
    if "http" in keys or "tcp" in keys:
        return probe_keys.probe(keys)
    if keys.keys() - {"accepting"} not in ({"delay"}, {"exec"}):
        raise value.wrong(allowed)
    read = {key: READY[key].read(entry) for key, entry in keys.items()}
    return Delay(seconds=read["delay"]) if "delay" in read else Exec(argv=read.pop("exec"), **read)


def _hook(value: Value) -> Hook:
    if isinstance(value.raw, list):
        return Hook(argv=values.COMMAND.read(value))
    allowed = '["PROGRAM", "ARGUMENT", ...] or { run = ["PROGRAM", ...], timeout = "5m" }'
    if not isinstance(value.raw, dict) or "run" not in value.raw:
        raise value.wrong(allowed)
    given = shape.fields(HOOK, value)
    return Hook(argv=given.pop("run"), **given)


def _resources(value: Value) -> Resources:
    found = Resources(**shape.fields(RESOURCES, value))
    high, most = found.memory_high, found.memory_max
    if high is not None and most is not None and high > most:
        raise value.entries()["memory_high"].refused(
            "is above memory_max, so it would never be reached", do="make it less, or remove one"
        )
    return found


# --- Tables ------------------------------------------------------------------------------------

READY = {
    "delay": Key(DURATION, "Ready when this much time has passed and it lives: a guess."),
    "exec": Key(
        values.COMMAND,
        "Ready when it accepts, and this command exits with 0 (tried until it does).",
    ),
    "accepting": Key(
        BOOLEAN, "Beside exec; false: it is run at once, for what cannot be seen to accept.", True
    ),
    **probe_keys.PROBE,
}
_KINDS = ("delay", "exec", "http", "tcp")
_READY = Shape(
    _ready, {"anyOf": [{"enum": ["accepting", "notify"]}, probe_keys.one_of(READY, _KINDS)]}
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
        "How many workers boot at a time; 0: twice as many as there are processors.",
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
    "canary": canary_keys.CANARY,
    "warmup": Key(
        probe_keys.PATHS,
        "Paths that each new worker is asked for by GET before it gets a connection. What it "
        "answers does not matter.",
        [],
    ),
    "warmup_requests": Key(integer(1, 1000), "How often a new worker is asked for each.", 3),
}
HOOK = {
    "run": Key(values.COMMAND, "The program and its arguments."),
    "timeout": Key(TIMEOUT, "It is killed after this time, and has failed.", "5m"),
}
_HOOK = Shape(_hook, {"anyOf": [values.COMMAND.schema, shape.table(HOOK, required=("run",))]})
HOOKS = {
    "before": Key(
        _HOOK,
        "Run once a reload, before the first new worker starts, as a migration must be. If it "
        "fails, the reload is aborted.",
    ),
    "ready": Key(
        _HOOK,
        "Run when all new workers are ready, before they get connections. If it fails, the reload "
        "is aborted.",
    ),
    "committed": Key(_HOOK, "Run when the new generation is the one that serves."),
    "aborted": Key(_HOOK, "Run when a reload was aborted; SOCKMGR_REASON says why."),
    "worker_ended": Key(
        _HOOK,
        "Run when a worker has ended; SOCKMGR_WORKER, _SLOT, _PID and _REASON say who and how.",
    ),
}
LIMITS = {
    "max_age": Key(
        TIMEOUT,
        "Recycle a worker that has served this long, or up to a tenth less: successor first, one "
        "at a time.",
    ),
    "max_rss": Key(values.MEMORY, "Recycle one whose processes have more than this in memory."),
    "max_requests": Key(
        integer(1, 10**12),
        "Recycle a worker of `app` that has had so many requests, or up to a tenth fewer.",
    ),
    "max_cpu_time": Key(
        TIMEOUT, "Recycle one whose processes have used so much CPU, or up to a tenth less."
    ),
}
RESOURCES = {
    "memory_high": Key(
        values.MEMORY, "Above this the kernel slows a worker down and takes memory back from it."
    ),
    "memory_max": Key(
        values.MEMORY, "A worker that needs more is killed, all its processes at once."
    ),
    "cpu_weight": Key(
        integer(1, 10000),
        "Its share of the processors when they are all busy, in proportion to 100 of the others.",
    ),
    "pids_max": Key(integer(1, 4194304), "So many processes and threads a worker may have."),
}

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
    "after": Key(
        values.AFTER,
        "Names of services that are to serve before the workers of this one are started, and that "
        "are stopped when this one has ended.",
        [],
    ),
    "workers": Key(
        values.WORKERS,
        "How many processes; auto: as many as there are processors for the manager, by its "
        "affinity and the quota of its cgroup.",
        1,
    ),
    "cwd": Key(
        shape.text("a directory", r"[^\x00]+"),
        "Working directory, relative to this file. Its real path is taken at each reload, so a "
        "generation stays in its own release when a symbolic link moves.",
    ),
    "env": Key(values.ENV, "Variables added for the workers, as texts.", {}),
    "env_file": Key(
        values.ENV_FILE,
        "Files with more such variables, NAME=VALUE, relative to this file and read anew at each "
        "reload; one whose name ends in ? may be missing. env counts more.",
    ),
    "inherit_env": Key(
        BOOLEAN, "Whether workers also get the environment of the manager itself.", True
    ),
    "unbuffered": Key(
        BOOLEAN, "Whether workers get PYTHONUNBUFFERED=1: what Python prints arrives at once.", True
    ),
    "venv": Key(
        shape.text("a directory, or nothing for none", r"[^\x00]*"),
        "The virtual environment whose programs come first, as seen from cwd: .venv, if it is "
        "there and this is not given. Its real path is taken at each reload. `app` runs in it too.",
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
        "on each listener), notify (it says READY=1, sd_notify(3)), a request that it answers as "
        "expected (http, tcp), a delay, or a command. "
        "A delay of 1 s without listeners, and notify for `app`.",
        "accepting",
    ),
    "ready_timeout": Key(
        TIMEOUT, "A worker not ready by then is killed; in a reload that aborts it.", "60s"
    ),
    "healthy": Key(
        probe_keys.HEALTHY_SHAPE,
        "What each worker that serves is asked for ever after; one that fails several times in a "
        "row is replaced as one that hangs. Not with accept = shared.",
    ),
    "stop_signal": Key(
        values.SIGNAL, "What asks a worker to finish: that of the preset, or TERM, if not given."
    ),
    "drain_timeout": Key(
        DURATION,
        "How long a worker may take to finish before its process group is killed; 0 kills at once.",
        "30s",
    ),
    **LIMITS,
    "resources": Key(
        Shape(_resources, shape.table(RESOURCES)),
        "What each worker may use at a time, in a cgroup of its own: needs Delegate=yes.",
    ),
    "hang_timeout": Key(
        DURATION,
        "Replace a worker that gives no sign of life for this long, after its stacks were printed "
        "to the log; 0 never does. 60 s for `app`; a command has to call "
        "sockmgr.worker.watchdog(), and is not looked at unless this is given.",
    ),
    "when_down": Key(
        TIMEOUT,
        "End the manager, with exit code 1, when no worker of the service has been ready for so "
        "long and no rollout is under way: for containers, whose runtime starts another.",
    ),
    "accept": Key(
        values.ACCEPT,
        "shared: the workers of a generation share one queue, and whoever is free takes the next "
        "connection. per-worker: each has its own queue and gets as many as the others, which is "
        "better for connections that last. dispatch: a process of sockmgr accepts and passes each "
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
    "prometheus_multiproc": Key(
        BOOLEAN,
        "Whether workers get a PROMETHEUS_MULTIPROC_DIR, where prometheus_client keeps their own "
        "metrics: `sockmgr metrics --application` has the sums.",
        False,
    ),
    "release": Key(
        values.RELEASE,
        "What the release in cwd is called, for `sockmgr status`, `history` and events: a command, "
        "whose last line is the name, or { file = ... }, the first line of a file below cwd.",
    ),
    "rollout": Key(
        # Twice as many as there are processors, which are not counted here.
        shape.made_of(functools.partial(Rollout, start_concurrency=0), ROLLOUT),
        "How one generation of workers replaces another.",
    ),
    "hooks": Key(
        shape.made_of(Hooks, HOOKS),
        "Commands that run once at a moment of a reload: an array, or { run = [...], timeout = "
        '"5m" }. They have the directory, user and environment of the new workers.',
    ),
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
    "on_stop": Key(
        values.ON_STOP,
        "Of TCP: refuse tells clients that come during a stop at once that nobody listens, so that "
        "a balancer goes elsewhere; with drop they hear nothing and try again, for who restarts.",
        "refuse",
    ),
}
UNIX_ONLY, TCP_ONLY = ("mode", "user", "group"), ("on_stop",)
