"""What each key of a service and of its rollout may be: one reader a key. Knows no other key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sockmgr.core.document import Value
from sockmgr.core.model import SURGE_ALL, Accepting, Delay, Exec, Notify, Ready, Surge

PRESETS = ("auto", "none", "uvicorn", "gunicorn", "uwsgi", "granian", "hypercorn")
MAX_WORKERS = 10_000

# Numbers of Linux on every architecture CPython is packaged for but MIPS, Alpha and PA-RISC.
SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "USR1": 10, "USR2": 12, "TERM": 15, "CONT": 18,
    "WINCH": 28, "PWR": 30,
}  # fmt: skip
RESOURCES = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
# Set for each worker by the manager; a value from `env` would be lost or would mislead.
RESERVED_ENV = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "NOTIFY_SOCKET")


def name(value: Value) -> str:
    """Return the name of a service or of the whole."""
    allowed = "a name of 1 to 64 letters, digits, _, - and ., beginning with a letter or digit"
    return value.text(allowed, r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _command(value: Value) -> tuple[str, ...]:
    allowed = 'an array: the program, then its arguments, for example ["uvicorn", "app:app"]'
    argv = value.texts(allowed)
    if not argv or not argv[0]:
        raise value.wrong(allowed)
    return argv


def octal(value: Value) -> int:
    """Return the bits of a mode or umask."""
    return int(value.text('octal digits in quotes, such as "0660" or "022"', r"0?[0-7]{1,4}"), 8)


def account(value: Value) -> str:
    """Return the name or number of a user or group, which may not exist."""
    return value.text("the name or number of an account, in quotes", r"[^\0:/\s]+")


def _env(value: Value) -> tuple[tuple[str, str], ...]:
    pairs = []
    for variable, entry in value.entries().items():
        if not variable or "=" in variable or "\0" in variable:
            raise entry.refused("is not a name for a variable", do="allowed: a text without =")
        if variable in RESERVED_ENV:
            raise entry.refused("is set by sockmgr itself for each worker", do="remove it from env")
        pairs.append((variable, entry.text('a text: numbers need quotes too, PORT = "80"')))
    return tuple(pairs)


def _limits(value: Value) -> tuple[tuple[str, int, int], ...]:
    limits = []
    for resource, entry in value.table(RESOURCES).items():
        if isinstance(entry.raw, list):
            both = [item.size() for item in entry.items("")]
            if len(both) != 2 or -1 < both[1] < (both[0] if both[0] >= 0 else 2**63):
                raise entry.wrong("[SOFT, HARD], the soft limit not above the hard one")
            limits.append((resource, both[0], both[1]))
        else:
            limits.append((resource, entry.size(), entry.size()))
    return tuple(sorted(limits))


def _signal(value: Value) -> int:
    if isinstance(value.raw, str):
        signal = value.raw.removeprefix("SIG")
        if signal in SIGNALS:
            return SIGNALS[signal]
    elif isinstance(value.raw, int) and value.raw in SIGNALS.values():
        return value.integer(1, 64)
    raise value.wrong(f"one of {', '.join(SIGNALS)}; a drain_timeout of 0 kills at once")


def _surge(value: Value) -> Surge:
    allowed = '"all", a number of workers from 1, or "1%" to "100%"; for none, exclusive = true'
    if value.raw == "all":
        return SURGE_ALL
    if isinstance(value.raw, str):
        text = value.text(allowed, r"[0-9]{1,5}%?").rstrip("%")
        amount, percent = int(text), value.raw.endswith("%")
    else:
        amount, percent = value.integer(1, MAX_WORKERS, allowed), False
    if not 1 <= amount <= (100 if percent else MAX_WORKERS):
        raise value.wrong(allowed)
    return Surge(amount=amount, percent=percent)


def _preset(value: Value) -> str:
    if value.raw not in PRESETS:
        raise value.wrong(", ".join(f'"{preset}"' for preset in PRESETS))
    return value.text()


def ready(value: Value) -> Ready:
    """Return what tells that a worker is ready."""
    allowed = '"accepting", "notify", { delay = "2s" } or { exec = ["COMMAND", ...] }'
    if value.raw == "accepting":
        return Accepting()
    if value.raw == "notify":
        return Notify()
    if not isinstance(value.raw, dict) or len(value.raw) != 1:
        raise value.wrong(allowed)
    planned = {"http": f"allowed: {allowed}"}
    ((kind, argument),) = value.table(("delay", "exec"), planned).items()
    if kind == "delay":
        return Delay(seconds=argument.seconds())
    return Exec(argv=_command(argument))


SERVICE: dict[str, Callable[[Value], Any]] = {
    "command": _command,
    "workers": lambda value: value.integer(1, MAX_WORKERS),
    "cwd": lambda value: value.text("a directory", r"[^\0]+"),
    "env": _env,
    "inherit_env": Value.boolean,
    "umask": octal,
    "user": account,
    "group": account,
    "limits": _limits,
    "listen_pid": Value.boolean,
    "ready_timeout": lambda value: value.seconds(zero=False),
    "stop_signal": _signal,
    "drain_timeout": Value.seconds,
    "max_age": lambda value: value.seconds(zero=False),
    "preset": _preset,
}
PLANNED = {
    "app": 'give a command instead, such as ["uvicorn", "--fd", "{http}", "shop.main:app"]',
    "max_rss": "remove it; max_age replaces workers by age",
}
ROLLOUT: dict[str, Callable[[Value], Any]] = {
    "surge": _surge,
    "probation": Value.seconds,
    "max_failed_starts": lambda value: value.integer(1, 1000),
    "start_concurrency": lambda value: value.integer(0, MAX_WORKERS),
    "max_draining": lambda value: value.integer(1, 100),
    "exclusive": Value.boolean,
}
