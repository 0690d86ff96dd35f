"""What a preset may look at, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a preset may look at: a service's listeners, by name and in order, and its surroundings.

    `addresses` are those of the listeners, without scheme. `drain_timeout` is how long the manager
    waits for a worker to end. `find` returns the file that a program's name stands for, None if
    there is none.
    """

    service: str
    listen: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    drain_timeout: float
    find: Callable[[str], str | None]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What a preset adds to a command: arguments, words in place of the program's, variables."""

    extra: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[bool, str], ...] = ()
