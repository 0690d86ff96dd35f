"""Our side of systemd, through python-systemd: the sockets it passed, and what it is told.

Every message comes from the manager's own process, so that NotifyAccess=main is enough.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from sockmgr.core.errors import ListenError, SockmgrError
from sockmgr.core.report import Verdict
from sockmgr.log import Log

log = Log("sockmgr")

FIRST = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
GRACE = 5.0  # seconds from a deadline of ours to the end of what it kills
LONGEST_STATUS = 2000  # bytes: PID 1 drops a message of more than 4096 (NOTIFY_BUFFER_MAX)
SHORTEST_PING = 0.01  # seconds: a mistaken WATCHDOG_USEC=1 must not keep a processor busy
BARRIER_TIMEOUT = 2.0
COMMITTED = "reload committed"
INSTALL = "install it: pip install 'sockmgr[systemd]', or the package python3-systemd"


class Subject(Protocol):
    """What systemd is told about."""

    def headline(self) -> str:
        """Return one line for people."""

    def busy_until(self) -> float:
        """Return when what drains or rolls out has ended, by its own deadlines."""

    def flaw(self) -> str:
        """Return what is wrong with us, or nothing."""


class Notifier:
    """Says to systemd how the manager is: sd_notify(3). Without NOTIFY_SOCKET it says nothing.

    `serving`, `stopping` and `changed` are to be called when that happens, `close` at the end.
    """

    def __init__(self, subject: Subject, environ: Mapping[str, str] = os.environ) -> None:
        """Raise SockmgrError if systemd waits for messages that cannot be sent."""
        self._subject = subject
        self._channel = _Channel() if environ.get("NOTIFY_SOCKET") else None
        self._ping_every = _ping_every(environ)
        self._timer: asyncio.TimerHandle | None = None
        self._served = self._stopping = False
        self._reloads = 0
        self._ended: dict[str, None] = {}  # how reloads ended while another went on, in order
        self._outcome = self._told = self._flaw = ""
        self._errno = 0
        self._extended_to = 0.0

    @property
    def store(self) -> FdStore | None:
        """What holds descriptors beyond our death, if systemd does."""
        return FdStore(self._channel) if self._channel else None

    def serving(self) -> None:
        """Everything serves for the first time."""
        if self._channel and not self._stopping:
            self._served = True
            self._say("READY=1")
            self._set_timer(self._ping_every)

    def changed(self) -> None:
        """Tell what is different, if it is something that is told."""
        if self._channel is None:
            return
        if self._outcome == COMMITTED:
            self._outcome = ""  # now the line shows it; a failure stays to be seen
        self._say(*self._extension())

    def stopping(self) -> None:
        """The manager drains everything and will leave."""
        if self._channel and not self._stopping:
            self._stopping, self._extended_to = True, 0.0
            self._outcome = "stopping"
            self._say("STOPPING=1")

    async def reload(self, verdicts: Awaitable[list[Verdict]]) -> list[Verdict]:
        """Wait for these verdicts, between a RELOADING=1 and the READY=1 that must follow."""
        self._reload_begins()
        outcome, number = "reload given up", 0
        try:
            found = await verdicts
            outcome = _told_of(found)
        except SockmgrError as error:
            outcome, number = f"reload refused: {error.what}", _errno_of(error)
            raise
        else:
            return found
        finally:
            self._reload_ends(outcome, number)

    def failed(self, error: SockmgrError) -> None:
        """The manager cannot start."""
        if self._channel:
            number = _errno_of(error)
            self._outcome = f"cannot start: {error.what}"
            self._say(*([f"ERRNO={number}"] if number else []))

    def close(self, timeout: float = BARRIER_TIMEOUT) -> None:
        """Return when systemd has read everything, or does not for `timeout` seconds."""
        if self._timer:
            self._timer.cancel()
        if self._channel:
            self._channel.wait_until_read(timeout)

    # --- Reloads ---------------------------------------------------------------------------------

    def _reload_begins(self) -> None:
        self._reloads += 1
        if self._channel is None or self._stopping:
            return
        self._outcome, self._extended_to = "reloading", 0.0
        if self._served:
            # In one message, and each time: a later `systemctl reload` wants one that is newer
            # than its request, even if a reload is under way (systemd.service(5), notify-reload).
            self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _reload_ends(self, outcome: str, number: int) -> None:
        self._reloads -= 1
        # From version 259 on STOPPING=1 is final, and the first READY=1 is not a reload's to say.
        if self._channel is None or self._stopping:
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
        """Ask for the time that our own deadlines allow, once for each that is later."""
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
        """Tell that we work, from the loop that does the work, if a look at ourselves agrees."""
        self._timer = None
        before, self._flaw = self._flaw, self._subject.flaw()
        if self._flaw:
            if self._flaw != before:
                log.error("watchdog not fed", because=self._flaw)
            # Soon again: what was about to be mended must not cost us our life.
            self._set_timer(self._ping_every / 5)
            return
        if before:
            log.info("watchdog fed again", was=before)
        if self._channel:
            self._channel.send("WATCHDOG=1")
        self._set_timer(self._ping_every)

    # --- Words -----------------------------------------------------------------------------------

    def _say(self, *fields: str) -> None:
        """Send these fields, and the status if it is news, in one message."""
        status = self._status()
        if status != self._told:
            fields += (f"STATUS={status}",)
            self._told = status
        if self._channel and fields:
            self._channel.send("\n".join(fields))

    def _status(self) -> str:
        line = self._subject.headline()
        if line and self._outcome:
            return _one_line(f"{line} ({self._outcome})")
        return _one_line(line or self._outcome)


class _Channel:
    """The way to NOTIFY_SOCKET. A systemd that does not listen does not stop the manager."""

    def __init__(self) -> None:
        self._daemon = _python_systemd(
            "NOTIFY_SOCKET is set: systemd waits for messages",
            means="nothing was started: it would wait for READY=1 in vain",
            do=f"{INSTALL}; if no systemd waits, unset NOTIFY_SOCKET",
        )
        self._broken = False

    def send(self, message: str, fds: Sequence[int] = ()) -> bool:
        """Send one message; return whether it was sent."""
        try:
            sent = bool(self._daemon.notify(message, fds=list(fds)))
        except OSError as error:
            if not self._broken:
                log.warning("systemd cannot be told", error=error.strerror)
            sent = False
        self._broken = not sent
        return sent

    def wait_until_read(self, timeout: float) -> bool:
        """Wait until all that was sent before has been read: sd_notify_barrier(3)."""
        read_end, write_end = os.pipe()
        try:
            try:
                sent = self.send("BARRIER=1", [write_end])  # alone, and with one descriptor
            finally:
                os.close(write_end)
            poll = select.poll()
            poll.register(read_end, 0)  # POLLHUP: the reader has closed the last copy
            return sent and bool(poll.poll(timeout * 1000))
        finally:
            os.close(read_end)


def _ping_every(environ: Mapping[str, str]) -> float:
    """Return half of the watchdog's interval, in seconds; 0 without one: sd_watchdog_enabled(3)."""
    text = environ.get("WATCHDOG_USEC", "")
    for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not text.isdecimal() or int(text) == 0 or not for_us:
        return 0.0
    return max(int(text) / 2e6, SHORTEST_PING)


def _told_of(verdicts: Sequence[Verdict]) -> str:
    aborted = [f"{v.service}: {v.reason}" for v in verdicts if v.verdict == "aborted"]
    return f"reload aborted: {'; '.join(aborted)}" if aborted else COMMITTED


def _errno_of(error: SockmgrError) -> int:
    cause = error.__cause__
    return (cause.errno or 0) if isinstance(cause, OSError) else 0


def _one_line(text: str) -> str:
    """Return what PID 1 takes for a status: UTF-8, no newline, not too long."""
    words = " ".join(text.split())
    shown = "".join(c if c.isprintable() else "?" for c in words).encode()
    return shown[:LONGEST_STATUS].decode(errors="ignore")


# --- Descriptors from systemd --------------------------------------------------------------------


class FdStore:
    """The file descriptor store of our unit, sd_pid_notify_with_fds(3). Outlives the manager."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def keep(self, name: str, fds: Sequence[int]) -> None:
        """Hold duplicates of `fds` under `name`, beside what is held there."""
        # Without FDPOLL=0 what hangs up is dropped, and nobody would hear that a worker died.
        self._channel.send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fds)

    def forget(self, name: str) -> None:
        """Hold nothing under `name` any more."""
        self._channel.send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def passed_descriptors(environ: Mapping[str, str] = os.environ) -> dict[str, list[int]]:
    """Return the descriptors meant for this process, by name; the caller owns them.

    Sockets of units have their FileDescriptorName=, what was stored has its FDNAME. The order
    within one name is systemd's, between names it is undefined. Raises SockmgrError.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = _count(environ.get("LISTEN_FDS", ""))
    for fd in range(FIRST, FIRST + count):
        _check_open(fd, count)
    passed: dict[str, list[int]] = {}
    for fd, name in _names(environ).items():
        os.set_inheritable(fd, False)
        passed.setdefault(name, []).append(fd)
    return passed


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
    daemon = _python_systemd(
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


def _python_systemd(why: str, *, means: str, do: str) -> Any:
    """Return systemd.daemon, of an extra that is needed under systemd only. Raises SockmgrError."""
    try:
        from systemd import daemon  # noqa: PLC0415
    except ImportError as error:
        raise SockmgrError(
            f"{why}, but python-systemd is not installed",
            means=means,
            do=do,
        ) from error
    return daemon
