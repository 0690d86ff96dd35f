"""Checks, before anything else, that sockmgr can work here: Linux, its version, Python's."""

from __future__ import annotations

import os
import re
import sys

from sockmgr.errors import SockmgrError

KERNEL = (5, 10)  # pidfd_open, pidfd_send_signal, SO_REUSEPORT programs, /proc/PID/syscall
PYTHON = (3, 11)


def check() -> None:
    """Raise SockmgrError if sockmgr cannot work here."""
    release = os.uname().release if hasattr(os, "uname") else ""
    if why := unsupported(sys.platform, release, sys.version_info[:2]):
        raise SockmgrError(why, means="nothing was started or changed")


def unsupported(platform: str, release: str, python: tuple[int, int]) -> str:
    """Return why sockmgr cannot work on a machine with these, or "" if it can."""
    if platform != "linux":
        return (
            f"sockmgr needs Linux: it is built on pidfds and SO_REUSEPORT, and this is {platform}"
        )
    found = re.match(r"(\d+)\.(\d+)", release)
    if found and (int(found[1]), int(found[2])) < KERNEL:
        return f"sockmgr needs Linux {_dotted(KERNEL)} or later; this kernel is {release}"
    if python < PYTHON:
        return f"sockmgr needs Python {_dotted(PYTHON)} or later; this is {_dotted(python)}"
    return ""


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
