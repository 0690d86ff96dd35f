"""The servers that sockmgr knows: how each is told of an application, and of nothing else.

sockmgr/presets.py knows what they need when they run; this only how their command lines are
written, and what of a command line for another manager has to go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sockmgr.core.project.facts import App, Interface

# The first that is declared or installed is taken: sockmgr counts workers itself, so one process.
PREFERRED = {
    Interface.ASGI: ("uvicorn", "granian", "hypercorn"),
    Interface.WSGI: ("gunicorn", "uwsgi", "granian"),
}
DISTRIBUTIONS = {"pyuwsgi": "uwsgi"}  # what is installed as -> what is called

_BINDING = {
    "uvicorn": ("--host", "--port", "--uds", "--fd"),
    "gunicorn": ("-b", "--bind"),
    "hypercorn": ("-b", "--bind", "--insecure-bind"),
    "granian": ("--host", "--port", "--uds"),
    "uwsgi": ("--http", "--http-socket", "--socket", "-s", "--http11-socket"),
}
_COUNTING = {
    "uvicorn": ("--workers",),
    "gunicorn": ("-w", "--workers"),
    "hypercorn": ("-w", "--workers"),
    "granian": ("--workers",),
    "uwsgi": ("-p", "--processes", "--workers"),
}
# They restart by themselves, or leave the foreground: both are the manager's.
_FLAGS = ("--reload", "--reuse-port", "-D", "--daemon", "--die-on-term")
# What becomes the server, or is not needed when the server is called by its own path.
_STARTERS = (("exec",), ("poetry", "run"), ("pipenv", "run"), ("pdm", "run"), ("hatch", "run"))
_PYTHON = re.compile(r"python[0-9.]*")


def command(server: str, word: Sequence[str], app: App) -> tuple[str, ...]:
    """Return the command by which `server`, called by `word`, serves `app`."""
    called = f"{app.target}()" if app.factory else app.target
    factory = ("--factory",) if app.factory else ()
    match server:
        case "uvicorn":
            return (*word, "--fd", "{http}", *factory, app.target)
        case "hypercorn":
            return (*word, "--bind", "fd://{http}", called)
        case "granian":
            return (*word, "--interface", app.interface.lower(), *factory, app.target)
        case "uwsgi":
            return (*word, "-w", called)
        case _:
            return (*word, "-k", "gthread", "--threads", "8", called)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """The command line of a server without what sockmgr does: `head` ends with its name."""

    server: str
    head: tuple[str, ...]
    args: tuple[str, ...]
    workers: int = 0
    dropped: tuple[str, ...] = ()

    def argv(self) -> tuple[str, ...]:
        """Return the whole command, with the socket where the server must be told of it."""
        extra = {"uvicorn": ("--fd", "{http}"), "hypercorn": ("--bind", "fd://{http}")}
        return (*self.head, *extra.get(self.server, ()), *self.args)


def rewrite(argv: Sequence[str]) -> Rewritten | None:
    """Return `argv` with its addresses and worker counts taken out; None for no known server."""
    rest = tuple(argv)
    for starter in _STARTERS:
        if rest[: len(starter)] == starter:
            rest = rest[len(starter) :]
    at = _server(rest)
    if at is None:
        return None
    name = rest[at].rpartition("/")[2]
    server = DISTRIBUTIONS.get(name, name)
    args: list[str] = []
    dropped: list[str] = []
    workers = 0
    words = iter(rest[at + 1 :])
    for word in words:
        option, value, whole = _split(word, (*_BINDING[server], *_COUNTING[server]))
        if word in _FLAGS:
            dropped.append(word)
        elif not option:
            args.append(word)
        else:
            value = next(words, "") if whole else value
            if option in _COUNTING[server]:
                found = re.search(r"\d+", value)  # also of ${WEB_CONCURRENCY:-3}
                workers = int(found[0]) if found else 0
            dropped.append(f"{option} {value}")
    return Rewritten(
        server=server, head=rest[: at + 1], args=tuple(args), workers=workers,
        dropped=tuple(dropped),
    )  # fmt: skip


def _server(argv: tuple[str, ...]) -> int | None:
    """Return where the name of the server is: first, or behind `python -m` or `uv run`."""
    at = 2 if argv[:2] == ("uv", "run") else 0
    if len(argv) > at + 2 and _PYTHON.fullmatch(argv[at].rpartition("/")[2]):
        at = at + 2 if argv[at + 1] == "-m" else at
    if len(argv) <= at:
        return None
    name = argv[at].rpartition("/")[2]
    return at if DISTRIBUTIONS.get(name, name) in _BINDING else None


def _split(word: str, options: Sequence[str]) -> tuple[str, str, bool]:
    """Return option, value, and whether the value is the next word; "" for none of `options`."""
    for option in options:
        if word == option:
            return option, "", True
        if option.startswith("--") and word.startswith(f"{option}="):
            return option, word[len(option) + 1 :], False
        if not option.startswith("--") and word.startswith(option):
            return option, word[len(option) :], False
    return "", "", False
