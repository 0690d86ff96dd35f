"""Servers that a table of shapes is played to: at a port and at a path, in one directory each."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.children import running
from tests.worker.runtime import PROGRAMS
from tests.worker.shapes import Seen, Shape, talk

Talk = Callable[[Any, Shape], list[Seen]]


@dataclass
class Server:
    """Where it is, and where it logs."""

    tcp: Any
    unix: str
    log: Path

    def answers(self, shape: Shape, client: Talk = talk) -> list[Seen]:
        """Return what `client` sees."""
        return client(self.unix if shape.unix else self.tcp, shape)


@contextlib.contextmanager
def serving(directory: Path, *argv: str) -> Iterator[Server]:
    """Run a module with these arguments; it has the port as descriptor 3, the path as 4."""
    directory.mkdir(exist_ok=True)
    log, path = directory / "log", str(directory / "sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.create_server(path, family=socket.AF_UNIX) as unix,
        log.open("wb") as written,
    ):
        launch = [sys.executable, "-u", "-P", "-c", _LAUNCH, *argv]
        fds = [tcp.fileno(), unix.fileno(), written.fileno()]
        with running(launch, fds=fds, cwd=str(PROGRAMS), env={**os.environ, "PYTHONPATH": "."}):
            yield Server(tcp.getsockname(), path, log)


# What it prints goes to a file, so that nobody need read it.
_LAUNCH = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
os.dup2(5, 1), os.dup2(5, 2), os.close(5)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
