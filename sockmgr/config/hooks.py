"""Hooks: commands that run once at a moment of a rollout, or when a worker has ended."""

from __future__ import annotations

import shlex
from enum import StrEnum

import msgspec

TIMEOUT = 300.0  # seconds, for a hook that says none


class Moment(StrEnum):
    """When a hook runs; its value is the key in the config.

    A rollout waits for BEFORE (before its first worker) and READY (before the cut-over), and is
    taken back if one of them fails. The others only hear of what has happened.
    """

    BEFORE = "before"
    READY = "ready"
    COMMITTED = "committed"
    ABORTED = "aborted"
    WORKER_ENDED = "worker_ended"


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """One hook, and how many seconds it may take; `executable` is its file once it is resolved."""

    argv: tuple[str, ...]
    timeout: float = TIMEOUT
    executable: str = ""

    def __str__(self) -> str:
        return shlex.join(self.argv)


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """The hooks of one service, each under its moment."""

    before: Hook | None = None
    ready: Hook | None = None
    committed: Hook | None = None
    aborted: Hook | None = None
    worker_ended: Hook | None = None

    def at(self, moment: Moment) -> Hook | None:
        found: Hook | None = getattr(self, moment)
        return found
