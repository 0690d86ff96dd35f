"""In which order services start and stop, by what each says that it is `after`.

A circle, which no config has but two that were taken over in part may, makes nobody wait.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sockmgr.config.company import longest_wait
from sockmgr.config.spec import Spec
from sockmgr.fleet.generation import rollout_timeout
from sockmgr.fleet.records import FleetRecords

KILLED = 15.0  # seconds beyond its drain_timeout in which a worker that is killed has ended


def patience(name: str, specs: Mapping[str, Spec]) -> float:
    """Return for how many seconds a service may wait at its start for those that it is after.

    Each of them has the time that the workers of a reload have, after those that it waits for.
    """
    seconds = {each: rollout_timeout(spec, spec.workers, None) for each, spec in specs.items()}
    return longest_wait(name, {each: spec.after for each, spec in specs.items()}, seconds)


def released(fleets: Mapping[str, FleetRecords]) -> list[str]:
    """Return the services that are held, and need not be: those that they are after serve."""
    return [name for name, fleet in fleets.items() if fleet.is_held and not awaited(fleet, fleets)]


def awaited(fleet: FleetRecords, fleets: Mapping[str, FleetRecords]) -> list[str]:
    """Return those that a service is after and that do not serve yet; who has ended never will."""
    after = fleet.serving.spec.after if fleet.serving else ()
    return [name for name in after if name in fleets and not _serves(fleets[name])]


def _serves(fleet: FleetRecords) -> bool:
    return fleet.stopping or (fleet.serving is not None and fleet.serving.full)


def followers(name: str, after: Mapping[str, Collection[str]]) -> list[str]:
    """Return those that are to end before a service is stopped: they are after it."""
    return [each for each in after if name in after[each] and each not in _before(name, after)]


def stop_patience(name: str, specs: Mapping[str, Spec]) -> float:
    """Return for how many seconds a service that is to stop may wait for its followers."""
    after = {each: spec.after for each, spec in specs.items()}
    seconds = {each: spec.drain_timeout + KILLED for each, spec in specs.items()}
    return longest_wait(name, {each: followers(each, after) for each in specs}, seconds)


def _before(name: str, after: Mapping[str, Collection[str]]) -> set[str]:
    """Return all that a service is after, by whatever detour."""
    found: set[str] = set()
    looked_at = [name]
    while looked_at:
        new = set(after.get(looked_at.pop(), ())) - found
        found |= new
        looked_at += new
    return found
