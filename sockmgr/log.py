"""The manager's own records: a constant message and its fields, one line each, on stderr."""

from __future__ import annotations

import logging
from collections.abc import Mapping


def _quote(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return repr(text) if not text or any(c.isspace() or c in "\"'=" for c in text) else text


def _with_fields(message: str, fields: Mapping[str, object]) -> str:
    """Return a record as one line of text."""
    return " ".join([message, *(f"{name}={_quote(value)}" for name, value in fields.items())])


class Log:
    """Named fields beside a constant message: `worker ready worker=7.2 pid=812 took=0.8`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **fields: object) -> None:
        """Tell what only a developer of sockmgr needs."""
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: object) -> None:
        """Tell that something changed."""
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """Tell of something that healed itself."""
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, **fields: object) -> None:
        """Tell of something that needs a human."""
        self._write(logging.ERROR, message, fields)

    def _write(self, level: int, message: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            text = _with_fields(message, fields)
            self._logger.log(level, "%s", text, extra={"told": {"message": message, **fields}})
