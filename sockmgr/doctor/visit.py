"""One visit to all patients, in order. Who calls has read the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sockmgr.core.config import Config
from sockmgr.doctor import config as config_checks
from sockmgr.doctor import machine, start
from sockmgr.doctor.finding import Finding


def visit(config: Config | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is found."""
    if config is not None:
        yield from config_checks.examine(config, environ)
    yield from machine.examine(config)
    if config is not None:
        yield from start.examine(config, held=())
