"""What a server's own config file and flags say that is the manager's to say. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_PIDFILE = "each worker and each new generation want it, and who finds it taken ends; remove it"
_DAEMON = "it leaves the foreground, which looks as if it had ended; remove it"
_COUNT = "it runs so many processes in each worker of ours; remove it, and set the key workers"
_BIND = "it has no effect beside the listeners that are handed over, or opens others; remove it"
_PORT = (
    "a new worker cannot open it while the old one has it, so each reload aborts; remove it, or "
    "let the kernel choose the port"
)
_RELOAD = "it restarts by itself and closes connections; remove it, sockmgr reloads"
_SETTINGS = {
    "gunicorn": {
        "pidfile": _PIDFILE, "daemon": _DAEMON, "workers": _COUNT, "bind": _BIND,
        "reload": _RELOAD, "reuse_port": "what waits at its own sockets is lost; remove it",
    },
    "uwsgi": {
        "pidfile": _PIDFILE, "pidfile2": _PIDFILE, "daemonize": _DAEMON, "daemonize2": _DAEMON,
        "processes": _COUNT, "workers": _COUNT, "socket": _BIND, "http": _BIND,
        "http-socket": _BIND, "stats": _PORT, "py-autoreload": _RELOAD,
    },
}  # fmt: skip
_FLAGS = {
    "gunicorn": {"-p": _PIDFILE, "--pid": _PIDFILE, "-D": _DAEMON, "--daemon": _DAEMON},
    "uwsgi": {"--pidfile": _PIDFILE, "--daemonize": _DAEMON, "--stats": _PORT},
    "hypercorn": {"-p": _PIDFILE, "--pid": _PIDFILE},
    "unicorn": {"-D": _DAEMON, "--daemonize": _DAEMON},
    "php-fpm": {"-D": _DAEMON, "--daemonize": _DAEMON},
}
_OFF = ("", "0", "1", "false", "none")  # of a flag, or one process
_LINE = re.compile(r"^[ \t]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(.*)$", re.MULTILINE)


def file_name(server: str, args: tuple[str, ...]) -> str:
    """Return the config file that a server of these arguments reads, "" for none that is known."""
    if server == "gunicorn":
        given = _value(args, ("-c", "--config"))
        return (
            ""
            if given.startswith("python:")
            else given.removeprefix("file:") or ("gunicorn.conf.py")
        )
    if server == "uwsgi":
        plain = next((word for word in args if word.endswith(".ini")), "")
        return _value(args, ("--ini", "-i")) or plain
    return ""


def flags(server: str, args: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each argument that says the same on the command line, and why it gets in the way."""
    for flag, why in _FLAGS.get(server, {}).items():
        if any(word.partition("=")[0] == flag for word in args):
            yield flag, why


def findings(server: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield each setting in a config file that gets in the way, and why."""
    settings = _python(text) if server == "gunicorn" else dict(_LINE.findall(text))
    for name, why in _SETTINGS.get(server, {}).items():
        if settings.get(name, "").strip().lower() not in _OFF:
            yield name, why


def _value(args: tuple[str, ...], options: tuple[str, ...]) -> str:
    for index, word in enumerate(args):
        option, equals, value = word.partition("=")
        if option in options:
            return value if equals else "".join(args[index + 1 : index + 2])
    return ""


def _python(text: str) -> dict[str, str]:
    """Return the texts of what the names in a Python file are set to."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # Gunicorn will say so
        return {}
    return {
        target.id: str(node.value.value)
        if isinstance(node.value, ast.Constant)
        else ast.get_source_segment(text, node.value) or "?"
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
