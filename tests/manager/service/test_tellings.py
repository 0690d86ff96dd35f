"""Hooks that only hear: a few at a time, in order, and counted where they are too many."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sockmgr.config.hooks import Hook, Hooks, Moment
from sockmgr.config.spec import Spec
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.service.tellings import AT_ONCE, WAITING_MAX, Tellings
from sockmgr.manager.workers.family import Family

ENDS = 120


class Watched(Family):
    """Tells when nothing runs any more."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = asyncio.Event()

    def part(self, pid: int) -> None:
        super().part(pid)
        # The next one is started in the same turn.
        asyncio.get_running_loop().call_soon(lambda: self.known or self.empty.set())


def test_a_flood_is_told_in_order_as_far_as_it_may_wait_and_the_rest_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = 'while ! test -e go; do sleep 0.05; done; echo "$SOCKMGR_SLOT" >>told'
    hook = Hook(argv=("sh", "-c", script), executable="/bin/sh")
    spec = Spec(
        service="web", argv=(), executable="", cwd=str(tmp_path),
        env=(("PATH", os.environ["PATH"]),), hooks=Hooks(worker_ended=hook),
    )  # fmt: skip
    told = tmp_path / "told"

    async def run() -> None:
        loop, family = asyncio.get_running_loop(), Watched()
        context: Any = SimpleNamespace(sink=Sink(), loop=loop, family=family)
        tellings = Tellings("web", context)
        for slot in range(1, ENDS + 1):
            tellings.tell(spec, 1, Moment.WORKER_ENDED, slot=slot)
        assert len(family.known) == AT_ONCE
        (tmp_path / "go").touch()
        await asyncio.wait_for(family.empty.wait(), 60)
        tellings.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    slots = [int(line) for line in told.read_text().split()]
    assert sorted(slots) == list(range(1, AT_ONCE + WAITING_MAX + 1))
    # One begins when all but AT_ONCE before it have ended; those that run write when they can.
    assert all(slot - place < AT_ONCE for place, slot in enumerate(slots, 1))
    assert f"number={ENDS - AT_ONCE - WAITING_MAX}" in caplog.text
