"""How the services of one config go together: who comes after whom, who can change with others.

Checks what only all services can tell. Reads no key by itself: config.py does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from sockmgr.config import canary_keys
from sockmgr.config.document import Value, nearest

if TYPE_CHECKING:
    from sockmgr.config.config import ServiceConfig
    from sockmgr.config.spec import Listen, Rollout


def check(
    top: Mapping[str, Value],
    services: Sequence[ServiceConfig],
    listens: Sequence[Listen],
    *,
    together: bool,
) -> None:
    """Raise ConfigError if these services cannot all be run as they say."""
    tables = top["service"].entries()
    _one_service_a_listener(top, services, [listen.name for listen in listens])
    _apps_take_streams(tables, services, listens)
    _after_somebody(tables, services)
    by_name = {listen.name: listen for listen in listens}
    for service in services:
        mine = [by_name[name] for name in service.listen]
        why, do = canary_keys.obstacle(service.rollout, service.workers, service.accept, mine)
        if why:
            canary = tables[service.name].entries()["rollout"].entries()["canary"]
            raise canary.refused(why, do=do)
        if together and (why := apart(service.rollout, service.workers)):
            raise top["rollout"].entries()["together"].refused(
                f"cannot be: service.{service.name} {why}",
                do="reload the others with `sockmgr reload --together SERVICE...` instead",
            )  # fmt: skip


def apart(rollout: Rollout, workers: int) -> str:
    """Say why a service cannot cut over in one instant with others; "" if it can."""
    if rollout.canary:
        return "has a canary: it has a share of the connections before it cuts over"
    if rollout.exclusive:
        return "is exclusive: its old workers end before anybody knows whether the new ones start"
    if rollout.surge.above(workers) < workers:
        return f"has surge = {rollout.surge}: its workers are replaced bit by bit, not at once"
    return ""


def longest_wait(
    name: str, awaited: Mapping[str, Collection[str]], seconds: Mapping[str, float]
) -> float:
    """Return how long `name` may wait for those that are `awaited`, who wait for others first.

    Each takes so many `seconds`. Who is not in there takes none, and nobody waits in a circle.
    """
    known: dict[str, float] = {name: 0.0}

    def ends(other: str) -> float:
        if other not in known:
            known[other] = 0.0  # should it wait for itself
            known[other] = wait(other) + seconds.get(other, 0.0)
        return known[other]

    def wait(each: str) -> float:
        return max(map(ends, awaited.get(each, ())), default=0.0)

    return wait(name)


def longest_stop(services: Sequence[ServiceConfig]) -> float:
    """Return for how long a stop may drain, in seconds: those that go one after another, add up."""
    after = {service.name: service.after for service in services}
    seconds = {service.name: service.drain_timeout for service in services}
    return max(seconds[name] + longest_wait(name, after, seconds) for name in seconds)


def _one_service_a_listener(
    top: Mapping[str, Value], services: Sequence[ServiceConfig], names: Sequence[str]
) -> None:
    users: dict[str, str] = {}
    for service in services:
        for name in service.listen:
            if name in users:
                value = top["service"].entries()[service.name]
                value = value.entries().get("listen", value)
                raise value.refused(
                    f"takes the listener {name}, which service.{users[name]} has",
                    do="one listener serves one service: give this one a listener of its own",
                )
            users[name] = service.name
    for name in names:
        if name not in users:
            unused = top["listen"].entries()[name]
            raise unused.refused(
                "is used by no service, so clients would wait there for ever",
                do=f'add "{name}" to the `listen` of a service, or remove it',
            )


def _apps_take_streams(
    tables: Mapping[str, Value], services: Sequence[ServiceConfig], listens: Sequence[Listen]
) -> None:
    datagrams = {each.name for each in listens if each.address.traits.is_datagram}
    for service in services:
        if service.app and (found := datagrams.intersection(service.listen)):
            raise tables[service.name].refused(
                f"serves HTTP, and its listener {min(found)} is of UDP",
                do="give that one to a service of its own",
            )


def _after_somebody(tables: Mapping[str, Value], services: Sequence[ServiceConfig]) -> None:
    """Refuse a service that is after nobody's name, or after itself by whatever detour."""
    after = {service.name: service.after for service in services}
    for service in services:
        keys = tables[service.name].entries()
        for item in keys["after"].items("") if service.after else ():
            if item.raw not in after:
                raise item.unusable(nearest(item.text(), after))
        if path := _way_back(service.name, after):
            raise keys["after"].refused(
                f"goes in a circle: {' -> '.join(path)}",
                do="remove one of these: each of them would wait for the next one",
            )


def _way_back(name: str, after: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the shortest way along `after` from a service to itself; empty if there is none."""
    ways, seen = [[name]], {name}
    for way in ways:  # grows while it is walked
        for other in after.get(way[-1], ()):
            if other == name:
                return [*way, name]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []
