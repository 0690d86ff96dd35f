"""The group of services that go together in one reload, and how far they are let. Pure."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Gate(IntEnum):
    """Where a service that goes together with others waits until all of them have come as far."""

    NONE = 0
    START = 1
    CUT_OVER = 2
    COMMIT = 3


class Together(msgspec.Struct, frozen=True, kw_only=True):
    """The group of one reload, by its number, and how far a service of it is `let`.

    `services` are all that belong to it. They are known when it starts: until then more may join.
    """

    group: int
    services: tuple[str, ...] = ()
    let: Gate = Gate.NONE
