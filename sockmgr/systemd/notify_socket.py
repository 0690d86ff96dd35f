"""Send messages to NOTIFY_SOCKET through python-systemd. Decides nothing."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import Any

from sockmgr.api.records import EventKind
from sockmgr.errors import SockmgrError
from sockmgr.log import Log

log = Log("sockmgr")

INSTALL = "install it: pip install 'sockmgr[systemd]', or the package python3-systemd"


class SystemdSocket:
    """Sends messages to NOTIFY_SOCKET; if they cannot be sent, the manager goes on without."""

    def __init__(self) -> None:
        self._daemon = python_systemd(
            "NOTIFY_SOCKET is set: systemd waits for messages",
            means="nothing was started: it would wait for READY=1 in vain",
            do=f"{INSTALL}; if no systemd waits, unset NOTIFY_SOCKET",
        )
        self._broken = False

    def send(self, message: str, fds: Sequence[int] = ()) -> bool:
        """Send one message, with `fds`, which are borrowed; return whether it was sent."""
        try:
            sent = bool(self._daemon.notify(message, fds=list(fds)))
        except OSError as error:
            if not self._broken:
                log.warning(EventKind.SYSTEMD_CANNOT_BE_TOLD, error=error.strerror)
            sent = False
        self._broken = not sent
        return sent

    def wait_until_read(self, timeout: float) -> bool:
        """Wait until systemd has read all earlier messages: sd_notify_barrier(3); return if so."""
        read_end, write_end = os.pipe()
        try:
            try:
                sent = self.send("BARRIER=1", [write_end])  # alone, and with one descriptor
            finally:
                os.close(write_end)
            poll = select.poll()
            poll.register(read_end, 0)  # POLLHUP comes when systemd closes its copy of write_end
            return sent and bool(poll.poll(timeout * 1000))
        finally:
            os.close(read_end)


def python_systemd(why: str, *, means: str, do: str) -> Any:
    """Return the module systemd.daemon; raise SockmgrError if python-systemd is not installed.

    It is an extra, because only a manager under systemd needs it.
    """
    try:
        from systemd import daemon  # noqa: PLC0415
    except ImportError as error:
        raise SockmgrError(
            f"{why}, but python-systemd is not installed",
            means=means,
            do=do,
        ) from error
    return daemon
