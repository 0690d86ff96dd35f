"""What happened in a program of sockmgr, as a value that is logged; a log line is one rendering."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

_PLAIN = re.compile(r"[^\s\"'=]+")  # a value that nobody takes for two, or for another field


def _quote(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else repr(text)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One thing that happened, which a handler finds as the `msg` of a logging record.

    Its `kind` is a constant message; the kinds that any code asks for are api.records.EventKind.
    """

    kind: str
    fields: Mapping[str, object]

    def __str__(self) -> str:
        """Return one line of text: `worker ready worker=7.2 pid=812 took=0.8`."""
        fields = [f"{name}={_quote(value)}" for name, value in self.fields.items()]
        return " ".join([self.kind, *fields])


class Log:
    """Logs occurrences, whose fields are given by name."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, kind: str, /, **fields: object) -> None:
        """Log what only a developer of sockmgr needs."""
        self._write(logging.DEBUG, kind, fields)

    def info(self, kind: str, /, **fields: object) -> None:
        """Log a change."""
        self._write(logging.INFO, kind, fields)

    def warning(self, kind: str, /, **fields: object) -> None:
        """Log a fault that mends itself."""
        self._write(logging.WARNING, kind, fields)

    def error(self, kind: str, /, **fields: object) -> None:
        """Log a fault that needs a human."""
        self._write(logging.ERROR, kind, fields)

    def _write(self, level: int, kind: str, fields: Mapping[str, object]) -> None:
        self._logger.log(level, Occurrence(kind, fields))
