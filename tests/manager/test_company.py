"""Which reloads may be combined with one of several services."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sockmgr.config.spec import Canary
from sockmgr.errors import ControlError
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.group import Together
from sockmgr.fleet.messages import Reload
from sockmgr.manager.company import Company
from sockmgr.manager.service.wishes import Facts, Wishes
from tests.fleet.reading import serving
from tests.fleet.story import listening, make_spec

CANARY = Canary(shares=(10,), seconds=30.0)


class Known(Wishes):
    """A service as far as others see it: its fleet, and the facts that it has not taken."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self._facts = fleet, Facts()


def test_no_listener_is_given_to_two_by_reloads_of_one_moment() -> None:
    web, api = Known(serving().fleet), Known(serving().fleet)
    company = Company(cast("Any", {"web": web, "api": api}))
    api.put(
        Reload(spec=make_spec("v2", listen=listening("http")), request=1)
    )  # it has not heard of it yet
    with pytest.raises(ControlError, match="which api still serves"):
        company.join([make_spec("v2", listen=listening("http"))], (), together=False)


def test_no_canary_is_combined_with_services_that_are_to_go_together() -> None:
    fleet = serving().fleet
    company = Company(cast("Any", {"web": Known(fleet)}))
    canary = make_spec("v3", canary=CANARY)
    assert not company.join([canary], (), together=False)
    fleet.handle(Reload(spec=make_spec("v2"), request=1), fleet.now)
    assert not company.join([canary], (), together=False)
    fleet.handle(Reload(spec=make_spec("v2"), request=2, together=Together(group=1)), fleet.now)
    assert not company.join([make_spec("v3")], (), together=False)
    with pytest.raises(ControlError, match="web cannot go together with others: it has a canary"):
        company.join([canary], (), together=False)
