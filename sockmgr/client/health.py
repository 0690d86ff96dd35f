"""`sockmgr health`, asked with as few modules as can be: probes run it every few seconds.

It knows the usual words of a command line, and one manager; all else is left to `cli/health`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Sequence

from sockmgr.client.places import SOCKET_VARIABLE, listening

DEFAULT_CONFIG = "sockmgr.toml"
PATIENCE = 5.0  # seconds, as a manager that is busy starting workers may take a moment
_METHOD = "io.sockmgr.Manager.Health"
_VALUED = {"-c": "config", "--config": "config", "--control": "control"}


def quick(words: Sequence[str]) -> int | None:
    """Ask, print the answer and return the exit code; None if this is not for us to answer."""
    given = _read(words)
    control = _control(given) if given is not None else None
    if given is None or control is None:
        return None
    healthy, line = ask(control, given.get("service"), ready="ready" in given)
    with contextlib.suppress(OSError):  # a probe looks at the exit code
        os.write(1, f"{line}\n".encode())
    return 0 if healthy else 1


def ask(
    control: str, service: str | None, *, ready: bool, timeout: float = PATIENCE
) -> tuple[bool, str]:
    """Return what the manager at `control` says, and False and why if it says nothing."""
    asked = {"service": service, "ready": ready or None}
    given = {name: value for name, value in asked.items() if value is not None}
    call = json.dumps({"method": _METHOD, "parameters": given}).encode() + b"\0"
    try:
        reply = json.loads(_exchange(control, call, time.monotonic() + timeout))
    except (TimeoutError, BlockingIOError):
        return False, f"no answer from the manager at {control} within {timeout:g} s"
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return False, f"no manager answers at {control}"
    except (OSError, ValueError) as error:
        return False, f"no answer from the manager at {control}: {error}"
    said = reply.get("parameters", {}) if isinstance(reply, dict) else None
    if not isinstance(said, dict):
        return False, f"the answer from {control} cannot be understood"
    if "error" in reply:
        return False, str(said.get("what") or reply["error"])
    return said.get("healthy") is True, str(said.get("line"))


def _exchange(control: str, call: bytes, deadline: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(max(0.001, deadline - time.monotonic()))
        client.connect(control)
        client.sendall(call)
        reply = b""
        while not reply.endswith(b"\0"):
            client.settimeout(max(0.001, deadline - time.monotonic()))
            piece = client.recv(65536)
            if not piece:
                raise ConnectionError("it hung up")
            reply += piece
        return reply[:-1]


def _read(words: Sequence[str]) -> dict[str, str] | None:
    """Return what these words give by name; None for a word that we do not know."""
    given: dict[str, str] = {}
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        if option in _VALUED and (equals or option == word):
            value = value if equals else next(left, "")
            if not value:
                return None
            given[_VALUED[option]] = value
        elif word == "--ready":
            given["ready"] = "yes"
        elif word.startswith("-") or "service" in given or not word:
            return None
        else:
            given["service"] = word
    return given


def _control(given: dict[str, str]) -> str | None:
    """Return the control socket that is meant, None if that takes more to know."""
    if path := given.get("control") or os.environ.get(SOCKET_VARIABLE):
        return path
    file, name = given.get("config"), ""
    if file or os.path.exists(DEFAULT_CONFIG):  # noqa: PTH110
        import tomli  # noqa: PLC0415 - not where the control socket is named

        try:
            with open(file or DEFAULT_CONFIG, "rb") as text:  # noqa: PTH123
                name = tomli.load(text).get("name", "sockmgr")
        except (OSError, ValueError):
            return None
    live = listening(name or None)
    return live[0] if len(live) == 1 else None
