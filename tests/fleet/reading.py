"""Short questions about a world and its actions, so that tests read as claims."""

from __future__ import annotations

from sockmgr.config.spec import Surge
from sockmgr.fleet.messages import Aborted, Action, Committed, Drain, Kill, Spawn
from tests.fleet.story import make_spec
from tests.fleet.world import World

ONE = Surge(amount=1)


def serving(**settings: object) -> World:
    """Return a world in which version v1 serves, with all its workers."""
    world = World()
    world.start(make_spec("v1", **settings))
    world.be_kind()
    return world


def spawned(actions: list[Action]) -> list[str]:
    return [str(a.worker) for a in actions if isinstance(a, Spawn)]


def drained(actions: list[Action]) -> list[str]:
    return [str(a.worker) for a in actions if isinstance(a, Drain)]


def killed(actions: list[Action]) -> list[str]:
    return [str(a.worker) for a in actions if isinstance(a, Kill)]


def verdict(actions: list[Action]) -> Committed | Aborted:
    (found,) = (a for a in actions if isinstance(a, Committed | Aborted))
    return found


def aborted(actions: list[Action]) -> Aborted:
    found = verdict(actions)
    assert isinstance(found, Aborted)
    return found
