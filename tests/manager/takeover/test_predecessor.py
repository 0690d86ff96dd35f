"""What is made of the workers of a predecessor whose state nobody can read."""

from __future__ import annotations

import os

import pytest

from sockmgr.config.spec import Accept, Spec
from sockmgr.fleet.messages import WorkerId
from sockmgr.kernel.process import Process
from sockmgr.manager.takeover.predecessor import Predecessor, guessed
from sockmgr.manager.workers.survivor import Survivor
from tests.helpers.listeners import opened, tcp


def survivor() -> Survivor:
    process = Process(os.getpid(), pidfd=-1)
    return Survivor(process=process, output=-1, since=0.0, ready=True, told=False)


def test_each_worker_that_is_passed_connections_has_a_lease_of_its_own() -> None:
    workers = {WorkerId(3, 1): survivor(), WorkerId(3, 2): survivor(), WorkerId(4, 1): survivor()}
    with opened(tcp()) as listener:
        spec = Spec(
            service="web", argv=("x",), executable="/x", cwd="/", listen=(listener.listen,),
            accept=Accept.DISPATCH,
        )  # fmt: skip
        found = guessed(spec, workers, [listener])
    assert [generation.lease for generation in found.generations] == [None, None]
    leases = [worker.lease for generation in found.generations for worker in generation.workers]
    assert sorted(leases) == [0, 1, 2]


@pytest.mark.parametrize("runs", [True, False])
def test_a_socket_that_a_worker_uses_stays_as_that_wants_it_though_nobody_kept_it(
    runs: bool,
) -> None:
    with opened(tcp()) as listener:
        queue = os.dup(listener.lease(0))
        os.set_blocking(queue, False)
        descriptors = {"http#0": [queue]} | (
            {"web@1.1": [os.pidfd_open(os.getpid())]} if runs else {}
        )
        predecessor = Predecessor(descriptors)
        [[sock]] = predecessor.take_queues().values()
        assert os.get_blocking(sock.fileno()) is not runs
        sock.close()
        for fd in predecessor.descriptors.get("web@1.1", []):
            os.close(fd)
