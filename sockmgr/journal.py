"""The journal of systemd in place of stderr: records as entries, and workers that write to it.

Where stderr is connected to the journal, nothing that a worker prints passes through the manager.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping

from sockmgr.core.errors import SockmgrError
from sockmgr.core.events import IDENTIFIER, PRIORITIES, encode, entry, line_of
from sockmgr.core.report import JournalPlace
from sockmgr.kernel.cgroup import own_unit
from sockmgr.log import Log
from sockmgr.output import RECORDS_MAX, Sink
from sockmgr.systemd import journald

log = Log("sockmgr")


def open_sink(*, as_json: bool) -> tuple[Sink, str]:
    """Return what our records go to, and why it is not the journal if it should be that.

    `as_json` is a wish about stderr, and leaves the journal out.
    """
    unit = own_unit()
    if as_json or unit is None or not journald.is_stderr():
        return Sink(as_json=as_json), ""
    try:
        journald.check()
        entries = journald.Entries()
    except OSError as error:
        return Sink(), f"{journald.SOCKET}: {error.strerror}"
    except SockmgrError as error:
        return Sink(), f"{error.what}; {error.do}"
    user = os.getuid() if unit.of_user else None
    return JournalSink(entries, JournalPlace(unit=unit.name, user=user)), ""


class JournalSink(Sink):
    """Sends entries to journald, and keeps a bounded number of bytes for when it takes more."""

    def __init__(self, entries: journald.Entries, place: JournalPlace) -> None:
        """Own `entries`; what they hold is read at `place`."""
        super().__init__(entries.fileno())
        self.place = place
        self._entries = entries
        self._waiting_entries: deque[bytes] = deque()
        self._size = 0
        self._gone = False

    @property
    def pending(self) -> int:
        """How many bytes journald has not taken yet."""
        return self._size

    def record(self, record: logging.LogRecord) -> None:
        """Send one of the manager's own records."""
        text, level = record.getMessage(), record.levelname.lower()
        if told := getattr(record, "told", None):
            self._put(entry(told, text, level))
        else:
            self._put(_foreign(text, level))

    def line(self, worker: str, text: str) -> None:
        """Send a line that came through a pipe all the same."""
        self._put(line_of(worker, text))

    def write(self, text: str) -> None:
        """Send lines of no worker."""
        self._put(_foreign(text.rstrip("\n"), "info"))

    def _put(self, fields: Mapping[str, str]) -> None:
        if self._size > RECORDS_MAX:
            self._dropped += 1
            return
        data = encode(fields)
        self._waiting_entries.append(data)
        self._size += len(data)
        self.flush()

    def _give(self) -> None:
        while self._waiting_entries:
            try:
                if not self._entries.send(self._waiting_entries[0]):
                    return
                self._gone = False
            except OSError:
                self._gone = True
                self._dropped += 1
            self._size -= len(self._waiting_entries.popleft())

    def _give_up(self) -> None:
        self._waiting_entries.clear()
        self._size = 0

    def _tell_dropped(self) -> None:
        if not self._gone:  # else with the next one that arrives
            dropped, self._dropped = self._dropped, 0
            log.warning("records dropped", number=dropped)


def _foreign(text: str, level: str) -> dict[str, str]:
    """Return the fields of a record that is not of our own making."""
    priority = str(PRIORITIES.get(level, 6))
    return {"MESSAGE": text, "PRIORITY": priority, "SYSLOG_IDENTIFIER": IDENTIFIER}
