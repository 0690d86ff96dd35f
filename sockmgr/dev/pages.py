"""Holds the error pages where stand-ins read them: in memory, under a path that stays the same.

Owns a memfd for each service, so nothing is left in the file system, however dev ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


class Pages:
    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def put(self, service: str, page: bytes) -> None:
        """Show this page from now on; a stand-in that has opened the page before reads that."""
        new = os.memfd_create("sockmgr-error-page", os.MFD_CLOEXEC)
        with open(new, "wb", closefd=False) as file:
            file.write(page)
        if service in self._fds:
            os.dup2(new, self._fds[service], inheritable=False)
            os.close(new)
        else:
            self._fds[service] = new

    def command(self, service: str, *, to_everyone: bool) -> tuple[str, ...]:
        """Return the command of a stand-in for `service`, after a page for it has been put."""
        options = ("--to-everyone",) if to_everyone else ()
        path = f"/proc/{os.getpid()}/fd/{self._fds[service]}"
        return (sys.executable, "-I", "-S", STAND_IN, *options, path)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])
