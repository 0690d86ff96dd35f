"""Find settings in a server's own config file, or among its flags, that conflict with us. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from sockmgr.config.servers import Duty, Server
from sockmgr.launch.call import last_value

_OFF = ("", "0", "1", "false", "none")  # values of a setting that is off; 1 is one process
_LINE = re.compile(r"^[ \t]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(.*)$", re.MULTILINE)


def file_name(server: str, args: tuple[str, ...]) -> str:
    """Return the config file that a server with these arguments reads, "" if it is not known."""
    if server == "gunicorn":
        given = last_value(args, ("-c", "--config")) or ""
        is_module = given.startswith("python:")
        return "" if is_module else given.removeprefix("file:") or "gunicorn.conf.py"
    if server == "uwsgi":
        plain = next((word for word in args if word.endswith(".ini")), "")
        return last_value(args, ("--ini", "-i")) or plain
    return ""


def flags(server: Server, args: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each flag in `args` that conflicts with the manager, and why."""
    for option, why in server.own.items():
        flag = option.removesuffix("=")
        if why and any(word.partition("=")[0] == flag for word in args):
            yield flag, why


def settings(server: Server, text: str) -> dict[str, str]:
    """Return the settings in the text of a config file, as texts; "?" for one that is computed."""
    return _python(text) if server.name == "gunicorn" else dict(_LINE.findall(text))


def findings(
    server: Server, given: Mapping[str, str], args: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Yield each of the settings given that conflicts with the manager, and why.

    The number of processes is no conflict if `args` have another, which wins.
    """
    overruled = {Duty.COUNT} if last_value(args, server.counting) else set()
    for name, why in server.settings.items():
        if given.get(name, "").strip().lower() not in _OFF and why not in overruled:
            yield name, why


def _python(text: str) -> dict[str, str]:
    """Return the top-level names of a Python file with their values as texts, "?" if computed."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # Gunicorn will complain
        return {}
    return {
        target.id: str(node.value.value) if isinstance(node.value, ast.Constant) else "?"
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
