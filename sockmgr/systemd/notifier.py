"""Report the state of the manager to systemd: sd_notify(3).

Every message comes from the manager's own process, so that NotifyAccess=main is enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from sockmgr.api.records import EventKind
from sockmgr.api.types import Verdict
from sockmgr.errors import SockmgrError
from sockmgr.log import Log
from sockmgr.systemd.protocol import SystemdSocket
from sockmgr.systemd.store import FdStore
from sockmgr.systemd.unit import fd_store_max

log = Log("sockmgr")

GRACE = 5.0  # seconds that a process may take to end after we killed it at its deadline
LONGEST_STATUS = 2000  # bytes: PID 1 drops a message of more than 4096 (NOTIFY_BUFFER_MAX)
SHORTEST_PING = 0.01  # seconds: a mistaken WATCHDOG_USEC=1 must not keep a processor busy
BARRIER_TIMEOUT = 2.0
COMMITTED = "reload committed"


class Subject(Protocol):
    """The manager, as far as its state is reported."""

    def headline(self) -> str:
        """Return one line for people."""

    def busy_until(self) -> float:
        """Return when every drain and rollout has ended, by its deadlines (CLOCK_MONOTONIC)."""

    def flaw(self) -> str:
        """Return why the manager does not work as it should, or ""."""


class Notifier:
    """Sends READY=1, STATUS= and the like to systemd; without NOTIFY_SOCKET it sends nothing.

    Call `serving`, `stopping` and `changed` when the manager begins to serve, begins to stop, or
    has changed; call `close` at the end.
    """

    def __init__(self, subject: Subject, environ: Mapping[str, str] = os.environ) -> None:
        """Raise SockmgrError if systemd waits for messages that cannot be sent."""
        self._subject = subject
        self._socket = SystemdSocket() if environ.get("NOTIFY_SOCKET") else None
        self.store = _store(self._socket, environ)  # that of our unit; None if it has none
        self._ping_every = _ping_every(environ)
        self._timer: asyncio.TimerHandle | None = None
        self._served = self._stopping = False
        self._reloads = 0
        self._ended: dict[str, None] = {}  # how reloads ended while another went on, in order
        self._outcome = self._sent_status = self._flaw = ""
        self._errno = 0
        self._extended_to = 0.0

    def serving(self) -> None:
        """Send READY=1: every service serves for the first time."""
        if self._socket and not self._stopping:
            self._served = True
            self._say("READY=1")
            self._set_timer(self._ping_every)

    def changed(self) -> None:
        """Send the status if it changed, and ask for more time if the manager needs it."""
        if self._socket is None:
            return
        if self._outcome == COMMITTED:
            self._outcome = ""  # the headline shows it from now on; a failure stays in the status
        self._say(*self._extension())

    def stopping(self) -> None:
        """Send STOPPING=1: the manager drains everything and then ends."""
        if self._socket and not self._stopping:
            self._stopping, self._extended_to = True, 0.0
            self._outcome = "stopping"
            self._say("STOPPING=1")

    @contextlib.contextmanager
    def reloading(
        self, *, on_signal: bool = False
    ) -> Iterator[Callable[[Sequence[Verdict]], None]]:
        """Show in the status that a reload is under way, and then how it ended.

        The caller gets a function, and calls it with the verdicts. With `on_signal` RELOADING=1 is
        sent as well, for which Type=notify-reload waits after its signal. It is not sent for other
        reloads: if the manager died during one that ExecReload= began, systemd (seen with 254 and
        257) would wait for READY=1 instead of starting the manager again.
        """
        outcome, number = "reload given up", 0

        def ended(verdicts: Sequence[Verdict]) -> None:
            nonlocal outcome
            aborted = [f"{v.service}: {v.reason}" for v in verdicts if v.verdict == "aborted"]
            outcome = f"reload aborted: {'; '.join(aborted)}" if aborted else COMMITTED

        # Both in one message, and for each reload: `systemctl reload` waits for a RELOADING=1 that
        # is newer than its request, even if a reload is under way (systemd.service(5)).
        now = time.monotonic_ns() // 1000
        self._reload_begins(["RELOADING=1", f"MONOTONIC_USEC={now}"] if on_signal else [])
        try:
            yield ended
        except SockmgrError as error:
            outcome, number = f"reload refused: {error.what}", _errno_of(error)
            raise
        finally:
            self._reload_ends(outcome, number)

    def failed(self, error: SockmgrError) -> None:
        """Send why the manager cannot start."""
        if self._socket:
            number = _errno_of(error)
            self._outcome = f"cannot start: {error.what}"
            self._say(*([f"ERRNO={number}"] if number else []))

    def close(self, timeout: float = BARRIER_TIMEOUT) -> None:
        """Return when systemd has read every message, or after `timeout` seconds."""
        if self._timer:
            self._timer.cancel()
        if self._socket:
            self._socket.wait_until_read(timeout)

    # --- Reloads ---------------------------------------------------------------------------------

    def _reload_begins(self, announced: Sequence[str]) -> None:
        self._reloads += 1
        if self._socket is None or self._stopping:
            return
        self._outcome, self._extended_to = "reloading", 0.0
        if self._served:
            self._say(*announced)

    def _reload_ends(self, outcome: str, number: int) -> None:
        self._reloads -= 1
        # From systemd 259 on STOPPING=1 is final; and serving() sends the first READY=1, not this.
        if self._socket is None or self._stopping:
            return
        self._ended[outcome] = None
        if self._reloads:
            return
        self._outcome = "; ".join(self._ended)
        self._ended.clear()
        fields = ["READY=1"] if self._served else []
        if number != self._errno:
            fields.append(f"ERRNO={number}")
            self._errno = number
        self._say(*fields)

    # --- Time ------------------------------------------------------------------------------------

    def _extension(self) -> Sequence[str]:
        """Return a request for more time, if our deadlines end later than what was asked for."""
        until = self._subject.busy_until() + GRACE
        now = time.monotonic()
        if not (self._stopping or self._reloads) or until <= max(now, self._extended_to):
            return ()
        self._extended_to = until
        return (f"EXTEND_TIMEOUT_USEC={int((until - now) * 1e6)}",)

    def _set_timer(self, delay: float) -> None:
        if self._ping_every and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._ping)

    def _ping(self) -> None:
        """Feed systemd's watchdog unless the manager has a flaw; the event loop's own timer."""
        self._timer = None
        before, self._flaw = self._flaw, self._subject.flaw()
        if self._flaw:
            if self._flaw != before:
                log.error(EventKind.WATCHDOG_NOT_FED, because=self._flaw)
            # Look again soon: at the end of the interval systemd would kill us, though the flaw
            # may have been mended by then.
            self._set_timer(self._ping_every / 5)
            return
        if before:
            log.info(EventKind.WATCHDOG_FED_AGAIN, was=before)
        if self._socket:
            self._socket.send("WATCHDOG=1")
        self._set_timer(self._ping_every)

    # --- Words -----------------------------------------------------------------------------------

    def _say(self, *fields: str) -> None:
        """Send these fields, and STATUS= if it changed, in one message."""
        status = self._status()
        if status != self._sent_status:
            fields += (f"STATUS={status}",)
            self._sent_status = status
        if self._socket and fields:
            self._socket.send("\n".join(fields))

    def _status(self) -> str:
        line = self._subject.headline()
        remarks = "; ".join(filter(None, [self._outcome, self.store.flaw if self.store else ""]))
        if line and remarks:
            return _one_line(f"{line} ({remarks})")
        return _one_line(line or remarks)


def _store(socket: SystemdSocket | None, environ: Mapping[str, str]) -> FdStore | None:
    limit = fd_store_max(environ) if socket else 0
    return FdStore(socket, limit) if socket and limit != 0 else None


def _ping_every(environ: Mapping[str, str]) -> float:
    """Return half of the watchdog's interval, in seconds; 0 without one: sd_watchdog_enabled(3)."""
    text = environ.get("WATCHDOG_USEC", "")
    for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not text.isdecimal() or len(text) > 20 or int(text) == 0 or not for_us:  # 64 bits
        return 0.0
    return max(int(text) / 2e6, SHORTEST_PING)


def _errno_of(error: SockmgrError) -> int:
    cause = error.__cause__
    return (cause.errno or 0) if isinstance(cause, OSError) else 0


def _one_line(text: str) -> str:
    """Return `text` as PID 1 accepts it for STATUS=: UTF-8, no newline, not too long."""
    words = " ".join(text.split())
    shown = "".join(c if c.isprintable() else "?" for c in words).encode()
    return shown[:LONGEST_STATUS].decode(errors="ignore")
