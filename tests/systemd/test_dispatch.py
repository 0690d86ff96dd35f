"""Connections that the manager passes on, and its death: the channels are in the fd store."""

from __future__ import annotations

from tests import deaths
from tests.systemd.machine import Machine


def test_managers_that_are_killed_at_rest_and_in_a_rollout_lose_what_they_had_in_hand_at_most(
    machine: Machine,
) -> None:
    place = deaths.UnderSystemd(deaths.site(machine, "app", "dispatch"))
    before = place.workers()
    with place.load(*deaths.LIGHT) as load:
        killed = [place.succeed(load)]
        assert place.workers() == before
        killed.append(deaths.manager_in_a_reload(place, load))
        result = load.stop()
    lost = [row for row in result.failed if not any(death.took(row) for death in killed)]
    assert not lost, result.failures()
