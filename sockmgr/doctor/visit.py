"""One visit to all patients. Who calls has read the config and asked the manager."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sockmgr.api.types import Status
from sockmgr.config.config import Config
from sockmgr.doctor import config as config_checks
from sockmgr.doctor import machine, manager, start, unit_files, units, unix_sockets, workers
from sockmgr.doctor.finding import Finding


@dataclass(slots=True)
class Visit:
    """What a visit looked at, and what it found."""

    looked_at: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def config(self, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        """Look at what the config says."""
        self.findings += config_checks.examine(config, environ)

    def machine(self, config: Config | None) -> None:
        """Look at this machine, and how it fits a config."""
        self.looked_at.append("this machine")
        self.findings += machine.examine(config)

    def units(
        self, config: Config, file: Path, directories: Sequence[Path], systemd: int | None
    ) -> bool:
        """Look at the units that run a config; return whether there are any."""
        found = unit_files.installed(file.absolute(), directories)
        for each in found:
            self.looked_at += [each.service.name, *(unit.name for unit in each.sockets)]
            self.findings += units.examine(config, each, systemd)
        return bool(found)

    def start(self, config: Config, control: str | None) -> None:
        """Look at what a manager would meet that was started here now, with this --control."""
        self.findings += start.examine(config, control)

    def manager(self, status: Status, config: Config | None, *, visible: bool) -> None:
        """Look at what a manager runs; `config` is what it runs, None if that is not known.

        Its processes are looked at if they are `visible` under their pids.
        """
        count = sum(len(service.workers) for service in status.services.values())
        who = f"manager {status.manager.pid}"
        self.looked_at.append(f"{who} with {count} {'worker' if count == 1 else 'workers'}")
        self.findings += manager.examine(status.manager.pid) if visible else ()
        self.findings += workers.examine(status, config, visible=visible)

    def sockets(self, config: Config) -> None:
        """Look at the unix listeners that are there."""
        self.findings += unix_sockets.private(config.listen, ahead=False)

    def words(self, service: str, lines: Iterable[str]) -> None:
        """Look at what a service with no or too few workers said last."""
        self.findings += workers.refused(service, lines)
