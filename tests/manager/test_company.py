"""Which reloads may be combined with one of several services."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sockmgr.config.spec import Canary
from sockmgr.errors import ControlError
from sockmgr.fleet.group import Together
from sockmgr.fleet.messages import Reload
from sockmgr.manager.company import Company
from tests.fleet.reading import serving
from tests.fleet.story import make_spec

CANARY = Canary(shares=(10,), seconds=30.0)


def test_no_canary_is_combined_with_services_that_are_to_go_together() -> None:
    fleet = serving().fleet
    company = Company(cast("Any", {"web": SimpleNamespace(fleet=fleet)}))
    canary = make_spec("v3", canary=CANARY)
    assert not company.join([canary], (), together=False)
    fleet.handle(Reload(spec=make_spec("v2"), request=1), fleet.now)
    assert not company.join([canary], (), together=False)
    fleet.handle(Reload(spec=make_spec("v2"), request=2, together=Together(group=1)), fleet.now)
    assert not company.join([make_spec("v3")], (), together=False)
    with pytest.raises(ControlError, match="web cannot go together with others: it has a canary"):
        company.join([canary], (), together=False)
