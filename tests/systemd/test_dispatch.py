"""Connections that are passed on, and the death of the manager and of the dispatcher."""

from __future__ import annotations

from tests import deaths
from tests.systemd.machine import Machine


def test_managers_and_dispatchers_that_are_killed_lose_what_they_had_in_hand_at_most(
    machine: Machine,
) -> None:
    place = deaths.UnderSystemd(deaths.site(machine, "app", "dispatch"))
    before = place.workers()
    with place.load(*deaths.LIGHT) as load:
        killed = [place.succeed(load)]
        assert place.workers() == before
        killed.append(deaths.manager_in_a_reload(place, load))
        killed.append(deaths.dispatcher(place, load))
        killed.append(deaths.dispatcher_in_a_reload(place, load))
        # The fd store has had it all the time, so the next manager goes on with it.
        dispatcher = place.dispatcher()
        killed.append(place.succeed(load))
        assert place.dispatcher() == dispatcher
        result = load.stop()
    lost = [row for row in result.failed if not any(death.took(row) for death in killed)]
    assert not lost, result.failures()
