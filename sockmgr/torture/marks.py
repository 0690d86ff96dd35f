"""Find and end all that a process started, whatever became of the parents, by their environment.

Owns no process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from sockmgr.kernel import procfs

MARK = "MARKED_SOCKMGR_RUN"  # workers inherit no SOCKMGR_*
END_TIMEOUT = 30.0  # seconds in which the kernel ends a process that was killed


def marked_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with `more` and a mark, by which all that inherits it is found."""
    return {**os.environ, **more, MARK: uuid.uuid4().hex}


def marked(env: Mapping[str, str]) -> list[int]:
    mark = f"{MARK}={env[MARK]}".encode()
    return [each.pid for each in procfs.everybody() if mark in _environment(each.pid)]


def end_marked(env: Mapping[str, str]) -> None:
    """Kill every process that inherited this marked environment; return when all are gone."""
    deadline = time.monotonic() + END_TIMEOUT
    killed = set[int]()
    while left := {*marked(env), *filter(procfs.member, killed)}:
        for pid in left - killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # One that is ending has its sockets for longer than its environment.
        killed |= left
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {END_TIMEOUT:g} s for the last processes to end")
        time.sleep(0.02)


def _environment(pid: int) -> bytes:
    """Return the environment a process was started with; empty for what is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
