"""What the manager does when something about a service has changed: at once, or soon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What to call, by what must not happen before the next manager would know of the change."""

    soon: Callable[[], None]  # nobody depends on it
    now: Callable[[], None]  # before anybody hears of it
    spawned: Callable[[str], None]  # this service started workers: before the event loop goes on
