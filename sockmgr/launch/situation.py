"""The input and the output of a preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a preset may look at: a service, its listeners and the environment of its workers.

    `listen` are the names of the listeners in order, `addresses` their addresses without scheme.
    `drain_timeout` is how long the manager waits for a worker to end. `find` returns the file of a
    program's name, None if there is none. `leaves_others`: a worker is stopped while others accept
    from its queue.
    """

    service: str
    listen: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    drain_timeout: float
    find: Callable[[str], str | None]
    addresses: tuple[str, ...] = ()
    leaves_others: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What a preset adds to a command.

    `extra` are arguments, `instead` words in place of the program's name, `env` variables. Of the
    `warnings`, those whose first value is true apply.
    """

    extra: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[bool, str], ...] = ()
