"""Reads the lines of a manager and its workers from systemd's journal, by journalctl."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from sockmgr.api.records import service_of
from sockmgr.api.types import JournalPlace, LogLine
from sockmgr.errors import ControlError
from sockmgr.terminal.pieces import Piece, whole

TAIL_LINES = 20
_LEVELS = ("error",) * 4 + ("warning", "info", "info", "debug")  # by priority, syslog(3)
_Entry = Mapping[str, Any]


class Journal:
    """The entries that the journal has of these units, about one service, or all if it is ""."""

    def __init__(self, places: Sequence[JournalPlace], service: str, *matches: str) -> None:
        self._service = service
        self._matches: list[str] = []
        for place in places:
            kind = "_SYSTEMD_UNIT" if place.user is None else "_SYSTEMD_USER_UNIT"
            owner = [] if place.user is None else [f"_UID={place.user}"]
            either = ["+"] if self._matches else []
            self._matches += [*either, f"{kind}={place.unit}", *owner, *matches]
        self._cursor = ""

    def last(self, number: int) -> list[LogLine]:
        """Return the last lines, the oldest first."""
        found: list[LogLine] = []
        # The service is only the beginning of a line's identifier, but journalctl can match only
        # whole values. So this reads backwards until there are enough lines of the service.
        with closing(self._entries("--reverse")) as entries:
            for entry in entries:
                self._cursor = self._cursor or entry["__CURSOR"]
                if len(found) == number:
                    break
                found += self._ours(entry)
        return found[::-1]

    def last_of_one_stream(self, number: int) -> list[LogLine]:
        """Return the last lines of the latest stream only.

        A worker that did not start is tried again under the same name, with a stream of its own,
        and the lines of two attempts may be interleaved.
        """
        with closing(self._entries("--reverse")) as entries:
            stream = next(entries, {}).get("_STREAM_ID")
        if not stream:
            return []
        with closing(self._entries("--reverse", f"_STREAM_ID={stream}")) as entries:
            return [_line(entry) for entry in itertools.islice(entries, number)][::-1]

    def follow(self) -> Iterator[LogLine]:
        """Yield each line that comes after the last one that was read, without an end."""
        after = [f"--after-cursor={self._cursor}"] if self._cursor else []
        with closing(self._entries("--follow", "--lines=all", *after)) as entries:
            for entry in entries:
                yield from self._ours(entry)

    def _ours(self, entry: _Entry) -> list[LogLine]:
        line = _line(entry)
        return [line] if self._service in ("", line.service) else []

    def _entries(self, *options: str) -> Generator[_Entry, None, None]:
        argv = ["journalctl", "--quiet", "--no-pager", "--all", "--output=json", *options]
        try:
            process = subprocess.Popen(
                [*argv, *self._matches], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError as error:
            raise ControlError(
                "the log is in systemd's journal, but there is no journalctl here",
                do="ask where systemd runs",
            ) from error
        with process:
            try:
                yield from map(json.loads, process.stdout or ())
                if process.wait() != 0 and process.stderr:
                    complaint = process.stderr.read().decode(errors="replace").strip()
                    raise ControlError(
                        f"the journal cannot be read: {complaint}",
                        do="run this as root, or as a user in the group systemd-journal",
                    )
            finally:
                process.terminate()


def last_words(place: JournalPlace, worker: str) -> tuple[str, ...]:
    """Return the last lines of one worker, none if there are none or we may not read them."""
    try:
        # If root asks, journald first writes down what it has received but not written yet.
        subprocess.run(["journalctl", "--sync"], capture_output=True, timeout=5, check=False)
        journal = Journal([place], "", f"SYSLOG_IDENTIFIER={worker}")
        found = journal.last_of_one_stream(TAIL_LINES)
        return tuple(whole(Piece(line.message, partial=bool(line.partial)) for line in found))
    except (OSError, subprocess.TimeoutExpired, ControlError):
        return ()


def _line(entry: _Entry) -> LogLine:
    source = _text(entry.get("SYSLOG_IDENTIFIER"))
    return LogLine(
        time=int(entry["__REALTIME_TIMESTAMP"]) / 1e6,
        level=_LEVELS[int(entry.get("PRIORITY", 6))],
        source=source,
        service=_text(entry.get("SOCKMGR_SERVICE")) or service_of(source),
        event=_text(entry.get("SOCKMGR_EVENT")),
        message=_text(entry.get("MESSAGE")),
        # The first is journald's mark of a line longer than LineMax= (journald.conf(5)).
        partial=entry.get("_LINE_BREAK") == "line-max" or "SOCKMGR_PARTIAL" in entry or None,
    )


def _text(value: Any) -> str:
    """Return a field as text: journalctl gives bytes that are not UTF-8 as a list of numbers.

    A field that an entry has several times comes as a list of values, and the first one counts.
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case [int(), *_]:
            return bytes(value).decode(errors="backslashreplace")
        case [first, *_]:
            return _text(first)
        case _:
            return str(value)
