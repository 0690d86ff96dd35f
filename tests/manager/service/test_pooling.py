"""A queue for each worker where the listeners allow it; one for all, and why, where they do not."""

from __future__ import annotations

import logging
import os
import resource
from pathlib import Path

import pytest
from msgspec.structs import replace

from sockmgr.config.spec import Accept, Rollout, Spec, Surge
from sockmgr.errors import ListenError
from sockmgr.manager.listeners.listener import MOST_QUEUES
from sockmgr.manager.service.pooling import pooled
from tests.helpers.listeners import opened, tcp, unix

SPEC = Spec(
    service="web", argv=("x",), executable="/x", cwd="/", workers=3, accept=Accept.PER_WORKER
)


def test_the_queues_of_all_workers_and_of_a_rollout_are_opened_before_they_are_needed() -> None:
    with opened(tcp()) as listener:
        assert pooled(SPEC, [listener]) is SPEC
        assert len(listener.queues) == 3 + 3
    with opened(tcp()) as listener:
        rolling = replace(SPEC, rollout=Rollout(surge=Surge(amount=1)))
        assert pooled(rolling, [listener]) is rolling
        assert len(listener.queues) == 3 + 1


def test_workers_that_share_a_queue_anyway_need_no_more(tmp_path: Path) -> None:
    shared = replace(SPEC, accept=Accept.SHARED)
    with opened(tcp()) as one, opened(unix(tmp_path / "s")) as other:
        assert pooled(shared, [one, other]) is shared
        assert len(one.queues) == 1


def test_a_unix_socket_has_one_queue_so_all_workers_share_it_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), opened(unix(tmp_path / "s")) as listener:
        assert pooled(SPEC, [listener]) == replace(SPEC, accept=Accept.SHARED)
    assert len(caplog.messages) == 1
    assert "workers share a queue" in caplog.text
    assert "the kernel steers TCP and UDP only" in caplog.text


def test_too_few_descriptors_for_the_queues_are_told_and_the_service_runs_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with opened(tcp()) as listener:
        last = os.dup(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, before[1]))
        try:
            found = pooled(SPEC, [listener])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            os.close(last)
    assert found.accept is Accept.SHARED
    assert "LimitNOFILE=" in caplog.text


def test_more_workers_than_the_program_can_choose_among_share_a_queue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with opened(tcp()) as listener:
        assert pooled(replace(SPEC, workers=MOST_QUEUES), [listener]).accept is Accept.SHARED
        assert len(listener.queues) == 1
        with pytest.raises(ListenError, match="more than 512 queues"):
            listener.lease(MOST_QUEUES)
    assert "fewer workers" in caplog.text
