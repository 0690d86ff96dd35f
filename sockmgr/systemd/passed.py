"""The descriptors that systemd passed at the start: sd_listen_fds(3)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sockmgr.errors import ListenError
from sockmgr.systemd import protocol
from sockmgr.systemd.protocol import FIRST

START_DIRECTLY = (
    "have ExecStart= run sockmgr itself, not a wrapper; a shell has to end in `exec sockmgr run`"
)


def passed_descriptors() -> dict[str, list[int]]:
    """Return all descriptors that systemd passed to this process, by name.

    Sockets of a unit have its FileDescriptorName=, descriptors from the fd store the name under
    which they were stored. The sockets of one unit are in systemd's order; any other order is
    undefined. The caller owns them; they are close-on-exec. Raises SockmgrError.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = _count(os.environ.get("LISTEN_FDS", ""))
    for fd in range(FIRST, FIRST + count):
        _check_open(fd, count)
    found: dict[str, list[int]] = {}
    for fd, name in sorted(_names().items()):
        os.set_inheritable(fd, False)
        found.setdefault(name, []).append(fd)
    return found


def passed_to_another(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> str:
    """Say that systemd passed sockets to another process than `pid` (None: this one), or "".

    It does so if ExecStart= runs a wrapper which starts the manager as a child: sd_listen_fds(3).
    """
    meant, count = environ.get("LISTEN_PID", ""), environ.get("LISTEN_FDS", "")
    pid = os.getpid() if pid is None else pid
    if not (meant.isdecimal() and count.isdecimal() and count.strip("0")) or meant == str(pid):
        return ""
    try:
        name = Path(f"/proc/{meant}/comm").read_text().strip()
    except OSError:  # it has ended
        name = "gone"
    names = environ.get("LISTEN_FDNAMES", "").replace(":", ", ")
    sockets = f"{count} socket{'' if count == '1' else 's'}" + (f" ({names})" if names else "")
    return f"systemd passed {sockets} to process {meant} ({name}), and the manager is process {pid}"


def _count(text: str) -> int:
    # More than 7 digits no process can have: fs.nr_open is about a million, proc_sys_fs(5).
    if not text.isdecimal() or len(text) > 7:
        raise ListenError(
            f"LISTEN_FDS={text!r} is not a number",
            means="nothing was started",
            do="start sockmgr by a .socket unit, or without LISTEN_FDS and LISTEN_PID",
        )
    return int(text)


def _check_open(fd: int, count: int) -> None:
    try:
        os.fstat(fd)
    except OSError as error:
        raise ListenError(
            f"LISTEN_FDS={count} but descriptor {fd} is not open",
            means="nothing was started: a socket would be missing",
            do="look for a wrapper between systemd and sockmgr that closes descriptors",
        ) from error


def _names() -> dict[int, str]:
    try:
        return protocol.listen_fds()
    except OSError as error:  # EINVAL: not as many names as sockets, sd_listen_fds_with_names(3)
        raise ListenError(
            f"LISTEN_FDS={os.environ['LISTEN_FDS']} and LISTEN_FDNAMES="
            f"{os.environ.get('LISTEN_FDNAMES', '')} cannot be used: {error.strerror}",
            means="nothing was started",
            do="look for a wrapper between systemd and sockmgr that changes them",
        ) from error
