"""The title of this process: how ps(1), top(1) and the kernel's log show whose it is."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_NAME_MAX = 15  # bytes of TASK_COMM_LEN without its NUL, PR_SET_NAME(2const)
_ARG_START, _ARG_END = 48 - 3, 49 - 3  # of what follows the name, proc_pid_stat(5)


def show(app: str) -> None:
    """Show service, generation and slot, and `app`; nothing if no manager has told who we are."""
    service, generation, slot = (
        os.environ.get(f"SOCKMGR_{name}", "") for name in ("SERVICE", "GENERATION", "SLOT")
    )
    if not service:
        return
    number = f"@{generation}" + (f".{slot}" if slot else "")
    kind = "worker" if slot else "template"
    with contextlib.suppress(OSError):  # /proc may be missing, or hidden
        # The kernel names a process so when it is out of memory: the number has to be in it.
        name = service.encode()[: _NAME_MAX - len(number)] + number.encode()
        Path("/proc/self/comm").write_bytes(name[:_NAME_MAX])
        title = f"sockmgr {kind} {service}{number} {app}"
        _overwrite_arguments(title.encode(errors="replace"))


def _overwrite_arguments(title: bytes) -> None:
    # Python has copied its arguments, and nobody else looks where they were but /proc/PID/cmdline.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    if start:
        # The NUL at the end stays: without it the kernel would show the environment as well.
        room = end - start
        ctypes.memmove(start, title[: room - 1].ljust(room, b"\0"), room)
