"""When the first generation counts as failed: dev then shows why, on an error page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sockmgr.dev.known import has_failed
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.messages import Kill, Start, Tick, WorkerExited, WorkerId
from tests.fleet.story import make_spec


def test_a_worker_that_is_killed_has_failed_only_when_what_it_said_is_known() -> None:
    fleet = Fleet()
    service: Any = SimpleNamespace(fleet=fleet)
    fleet.handle(Start(spec=make_spec("v1", ready_timeout=5.0)), 100.0)
    assert not has_failed(service)
    [kill] = [each for each in fleet.handle(Tick(), 106.0) if isinstance(each, Kill)]
    assert not has_failed(service)
    fleet.handle(WorkerExited(worker=WorkerId(1, 1), status=-9), 106.1)
    assert kill.worker == WorkerId(1, 1)
    assert has_failed(service)
