"""Send messages to NOTIFY_SOCKET, and tell once if they cannot be sent. Decides nothing."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence

from sockmgr.api.records import EventKind
from sockmgr.log import Log
from sockmgr.systemd import protocol

log = Log("sockmgr")


class SystemdSocket:
    """Sends messages to NOTIFY_SOCKET; if they cannot be sent, the manager goes on without."""

    def __init__(self) -> None:
        self._broken = False

    def send(self, message: str, fds: Sequence[int] = ()) -> bool:
        """Send one message, with `fds`, which are borrowed; return whether it was sent."""
        try:
            sent = protocol.notify(message, fds)
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
