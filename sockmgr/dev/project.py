"""Finds which files and directories are the code of a config."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from dataclasses import dataclass

from sockmgr.config.config import Config, ServiceConfig
from sockmgr.dev.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Where a project is: `file` is its config, "" if it has none.

    `base` is the directory to which the paths in the config are relative. `cwd` is the directory in
    which the manager runs, and each service that has no `cwd` of its own.
    """

    base: str
    cwd: str
    file: str = ""

    def rules(self, config: Config) -> Rules:
        dev = config.dev
        roots = [_join(self.base, path) for path in dev.watch]
        files = [path for service in config.services for path in self._arguments(service)]
        return Rules(
            _join(self.base, ""),
            roots or [_join(self.cwd, service.cwd) for service in config.services],
            ignore=dev.ignore,
            include=dev.include,
            files=[*files, self.file] if self.file else files,
        )

    def _arguments(self, service: ServiceConfig) -> Iterator[str]:
        """Yield the files of the project that the command names: `node server.js`, `./server`."""
        cwd = _join(self.cwd, service.cwd)
        for argument in service.command:
            path = _join(cwd, argument)
            if path.startswith(f"{cwd}/") and os.path.isfile(path):  # noqa: PTH113
                yield path


def _join(base: str, path: str) -> str:
    """Return an absolute path in the form that rules.py demands."""
    return os.path.normpath(os.path.join(base, path)).rstrip("/")  # noqa: PTH118
