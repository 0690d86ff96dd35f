"""One visit to all patients, in order. Who calls has read the config."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sockmgr.core.config import Config
from sockmgr.doctor import config as config_checks
from sockmgr.doctor import machine, start, unit_files, units
from sockmgr.doctor.finding import Finding


@dataclass(slots=True, kw_only=True)
class Visit:
    """What a visit looked at and what it found."""

    looked_at: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def machine(self) -> None:
        """Look at this machine alone."""
        self.looked_at.append("this machine")
        self.findings += machine.examine(None)

    def config(
        self,
        config: Config,
        file: Path,
        directories: Sequence[Path],
        *,
        systemd: int | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Look at a config, the machine it is for, and units in `directories` that run it."""
        self.findings += config_checks.examine(config, environ)
        self.looked_at.append("this machine")
        self.findings += machine.examine(config)
        found = unit_files.installed(file.absolute(), directories)
        if not found:
            self.findings += start.examine(config)
        for each in found:
            self.looked_at += [each.service.name, *(unit.name for unit in each.sockets)]
            self.findings += units.examine(config, each, systemd)
