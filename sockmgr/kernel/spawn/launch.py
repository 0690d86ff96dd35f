"""One program that is to be started, with its descriptors, environment and identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start.

    `executable` is the file to run, absolute or relative to `cwd`; the program sees it as its
    argv[0]. `fds` become 3, 4, ... in this order, `stdout` and `stderr` 1 and 2; all of them are
    borrowed. `env` is the whole environment; with `set_listen_pid` LISTEN_PID is added. `limits`
    are resource names of getrlimit(2) without RLIMIT_, with soft and hard limit (-1: unlimited).
    """

    argv: Sequence[str]
    executable: str
    env: Mapping[str, str]
    cwd: str
    fds: Sequence[int] = ()
    umask: int | None = None
    user: str = ""
    group: str = ""
    limits: Sequence[tuple[str, int, int]] = ()
    set_listen_pid: bool = True
    stdout: int = 1
    stderr: int = 2

    @property
    def path(self) -> str:
        """The path of the file to run, absolute or relative to the manager's directory."""
        return str(Path(self.cwd, self.executable))
