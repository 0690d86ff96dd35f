"""The limits of a spec that a worker may reach, and which one it has reached. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from sockmgr.config.spec import Spec
from sockmgr.terminal.format import size

SPREAD = 0.1  # the part of a limit by which workers differ, so that not all reach it at once


class Limit(StrEnum):
    """What a worker may use up: bytes, requests, or seconds; the value is the key that says so."""

    RSS = "max_rss"
    REQUESTS = "max_requests"
    AGE = "max_age"
    CPU_TIME = "max_cpu_time"


class Wear(msgspec.Struct, frozen=True, kw_only=True):
    """Which limit a worker reached first, at what instant, and how far it got."""

    limit: Limit
    at: float
    why: str


def spread(limit: float | None, draw: float) -> float:
    """Return a limit as it holds for the worker with this `draw`; inf if there is none."""
    return math.inf if limit is None else limit * (1 - SPREAD * draw)


def reached(spec: Spec, used: Mapping[Limit, float], draw: float) -> tuple[Limit, str] | None:
    """Return the limit that a worker has reached that has `used` so much, and how far it got."""
    for limit, amount in used.items():
        # Memory is not spread: who asks for 512M gets that, and one may start with 470M.
        is_memory = limit is Limit.RSS
        most = getattr(spec, limit)
        if amount >= spread(most, 0.0 if is_memory else draw):
            told = [size(int(n)) if is_memory else f"{n:.9g}" for n in (amount, most)]
            return limit, f"{limit} reached: {' of '.join(told)}"
    return None
