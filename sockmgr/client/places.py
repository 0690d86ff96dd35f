"""The directories in which managers have their control sockets.

Paths are texts here: `sockmgr health` has to be quick, and would load pathlib for nothing else.
"""

from __future__ import annotations

import os
import socket

SOCKET_VARIABLE = "SOCKMGR_CONTROL"


def places() -> list[str]:
    """Return where a manager of ours may listen, the best first."""
    # systemd.exec(5): RUNTIME_DIRECTORY may hold several paths, separated by colons.
    found = [place for place in os.environ.get("RUNTIME_DIRECTORY", "").split(":") if place]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(f"{runtime}/sockmgr")
    return [*found, "/run/sockmgr", *_fallbacks()]


def searched() -> list[str]:
    """Return where clients look for a manager."""
    # Under cron XDG_RUNTIME_DIR is not set, though the user's managers may be there.
    found = [*places(), f"/run/user/{os.geteuid()}/sockmgr"]
    # Each further manager has a RuntimeDirectory= of its own: systemd removes it with the service.
    found += sorted(f"/run/{name}" for name in names("/run") if name.startswith("sockmgr-"))
    strange = [each for each in _fallbacks() if os.path.lexists(each) and _is_of_others(each)]
    return [each for each in dict.fromkeys(found) if each not in strange]


def names(directory: str) -> list[str]:
    """Return the names in a directory; none if there is no such directory, or it is not for us."""
    try:
        return os.listdir(directory)  # noqa: PTH208
    except OSError:
        return []


def is_live(path: str) -> bool:
    """Tell whether somebody listens at a control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # the backlog is full, so there is a listener
            return True
        except OSError:
            return False
        return True


def listening(name: str | None) -> list[str]:
    """Return the paths at which somebody listens as a manager called `name` would (None: any)."""
    # Not by glob(), which some versions of Python 3.11 have fail where we may not look, as in
    # /run/user under ProtectHome=yes.
    found = list[str]()
    for place in searched():
        # By name: who may enter the directory, as a member of a group, need not be able to list it.
        own = f"{name or place.rpartition('/sockmgr-')[2]}.sock"
        found += (f"{place}/{each}" for each in ([own] if name else sorted({own, *names(place)})))
    return [path for path in found if path.endswith(".sock") and is_live(path)]


def _fallbacks() -> list[str]:
    # In a container whose files are read-only, /tmp is too, or a volume that anybody may write to.
    return [f"{parent}/sockmgr-{os.geteuid()}" for parent in ("/tmp", "/dev/shm")]  # noqa: S108


def _is_of_others(directory: str) -> bool:
    """Tell whether others may write there: anybody may make a directory in these."""
    from pathlib import Path  # noqa: PLC0415 - as above

    from sockmgr.kernel import private  # noqa: PLC0415 - as above

    return bool(private.flaw(Path(directory)))
