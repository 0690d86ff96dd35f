"""A world, copied as it is, so that two futures of it can be played."""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import Any

from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Address, Listen, Spec
from sockmgr.fleet.history import Entry, Kept, Origin
from sockmgr.fleet.lease_book import Kind
from sockmgr.fleet.messages import Together, WorkerId
from tests.simulation.kernel import Report
from tests.simulation.manager import State
from tests.simulation.world import World

# Values that never change are not copied: a world has many, and they are large.
VALUES = (Spec, Config, ServiceConfig, Address, Listen, Entry, Kept, Origin, Kind, Together,
          WorkerId, State, Report)  # fmt: skip


class Copier:
    """Copies worlds. It keeps what copies have in common, so it is for a few of them."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._written = io.BytesIO()
        _VALUES.clear()

    def write(self, world: World) -> None:
        """Have a world as it is now, of which copied() returns copies."""
        self._written = io.BytesIO()
        pickler = pickle.Pickler(self._written, 5)
        pickler.dispatch_table = copyreg.dispatch_table | dict.fromkeys(VALUES, self._reduced)
        pickler.dump(world)

    def copied(self) -> World:
        """Return another copy."""
        copy: World = pickle.loads(self._written.getbuffer())
        return copy

    def _reduced(self, value: Any) -> tuple[Any, tuple[int]]:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(_VALUES)
            _VALUES.append(value)
        return _value, (number,)


_VALUES: list[Any] = []


def _value(number: int) -> Any:
    return _VALUES[number]
