"""What a manager tells of the generations that its services have had; public, as in types.py."""

from __future__ import annotations

import msgspec


class PastGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """A generation that a service has, or has had.

    `began` is when, in seconds since 1970. `origin` is how it came, "start", "reload" or
    "rollback", and "" if that is not known; `by` is who asked for it; `rollback` is the generation
    that it brings back, 0 if none. `verdict` is "committed" or "aborted", "" without one yet.
    `served` is for how many seconds it was the one that serves, None if it never was; `serves` is
    whether it still is. `kept` is whether `sockmgr rollback` could go back to it.
    """

    service: str
    generation: int
    began: float
    origin: str
    by: str
    rollback: int
    verdict: str
    reason: str
    served: float | None
    serves: bool
    directory: str
    release: str
    kept: bool
