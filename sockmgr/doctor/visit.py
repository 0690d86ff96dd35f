"""One visit to all patients. The caller has read the config and asked the manager."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sockmgr.api.types import Status
from sockmgr.config.config import Config
from sockmgr.doctor import config as config_checks
from sockmgr.doctor import (
    machine,
    manager,
    ports,
    proxy,
    start,
    unit_files,
    units,
    unix_sockets,
    workers,
)
from sockmgr.doctor.finding import Finding
from sockmgr.terminal.format import count


@dataclass(slots=True)
class Visit:
    """What was looked at, and the findings."""

    looked_at: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def config(self, config: Config) -> None:
        """Look at what the config says."""
        self.findings += config_checks.examine(config, os.environ)

    def proxy(self, config: Config, file: Path) -> None:
        """Look at the config of a proxy; raise SockmgrError if it cannot be read."""
        self.looked_at.append(str(file))
        self.findings += proxy.examine(config, file)

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
        """Look at what would hinder a manager that started here now, with this --control."""
        self.findings += start.examine(config, control)

    def manager(self, status: Status, config: Config | None, *, visible: bool) -> None:
        """Look at a running manager; `config` is the config it runs, None if that is not known.

        Its processes are looked at only if they are `visible` under their pids here.
        """
        number = sum(len(service.workers) for service in status.services.values())
        self.looked_at.append(f"manager {status.manager.pid} with {count(number, 'worker')}")
        self.findings += manager.examine(status.manager.pid) if visible else ()
        self.findings += workers.examine(status, config, visible=visible)
        if visible and config:
            more = config_checks.of_manager(config, status.manager.pid)
            self.findings += [one for one in more if one not in self.findings]
        if config:
            # Imported late, because it imports ssl, which would slow down shell completion.
            from sockmgr.doctor import answers, releases  # noqa: PLC0415

            self.findings += releases.unnamed(status.services, config)
            self.findings += answers.examine(status, config) if visible else ()

    def sockets(self, config: Config) -> None:
        """Look at the unix listeners that exist."""
        self.findings += unix_sockets.private(config.listen, ahead=False)

    def words(self, service: str, lines: Sequence[str], status: Status, *, visible: bool) -> None:
        """Look at the last words of a service with no or too few workers."""
        self.findings += workers.refused(service, lines)
        self.findings += ports.taken(service, lines, status) if visible else ()
