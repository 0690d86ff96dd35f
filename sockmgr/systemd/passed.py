"""The descriptors that systemd passed at the start: sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from sockmgr.core.errors import ListenError
from sockmgr.systemd.channel import INSTALL, python_systemd

FIRST = 3  # SD_LISTEN_FDS_START


def passed_sockets(environ: Mapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """Return the sockets meant for this process, by FileDescriptorName=; the caller owns them.

    The order within one name is systemd's, between names it is undefined. Raises SockmgrError.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = _count(environ.get("LISTEN_FDS", ""))
    for fd in range(FIRST, FIRST + count):
        _check_open(fd, count)
    sockets: dict[str, list[socket.socket]] = {}
    for fd, name in _names(environ).items():
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        sockets.setdefault(name, []).append(sock)
    return sockets


def _count(text: str) -> int:
    if not text.isdecimal():
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


def _names(environ: Mapping[str, str]) -> dict[int, str]:
    daemon = python_systemd(
        "systemd passed sockets",
        means="nothing was started; the sockets stay open in systemd",
        do=INSTALL,
    )
    try:
        names: dict[int, str] = daemon.listen_fds_with_names(unset_environment=False)
    except OSError as error:  # EINVAL: not one name for each, sd_listen_fds_with_names(3)
        raise ListenError(
            f"LISTEN_FDS={environ['LISTEN_FDS']} and LISTEN_FDNAMES="
            f"{environ.get('LISTEN_FDNAMES', '')} cannot be used: {error.strerror}",
            means="nothing was started",
            do="look for a wrapper between systemd and sockmgr that changes them",
        ) from error
    return names
