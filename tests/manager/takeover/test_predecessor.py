"""What is made of what a predecessor left, also where nobody can read its state."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from sockmgr.config.spec import Accept, Spec
from sockmgr.fleet.messages import WorkerId
from sockmgr.kernel.process import Process
from sockmgr.kernel.queues import inode
from sockmgr.launch.additions import LAUNCHER
from sockmgr.manager.takeover import unlabelled
from sockmgr.manager.takeover.predecessor import Predecessor, guessed
from sockmgr.manager.takeover.state import boot_id
from sockmgr.manager.workers.survivor import Survivor
from tests.helpers.listeners import opened, tcp
from tests.helpers.states import memfd, state


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


@pytest.mark.parametrize(
    "launcher",
    ["/opt/old/lib/sockmgr/launch_granian.py", "/opt/old/lib/sockmgr/programs/launch_granian.py"],
)
def test_a_dead_worker_is_replaced_though_the_launcher_of_the_older_version_is_gone(
    launcher: str,
) -> None:
    written = state(())
    [service] = written.services
    [generation] = service.generations
    old = replace(generation.spec, argv=("/opt/python", launcher, "--fd", "{http}", "app:app"))
    service = replace(service, generations=(replace(generation, spec=old),), pending=old)
    left = Predecessor.of(
        {"@state": [memfd(replace(written, boot_id=boot_id(), services=(service,)))]}
    )
    assert left.state is not None
    [service] = left.state.services
    argv = ("/opt/python", LAUNCHER, "--fd", "{http}", "app:app")
    assert service.generations[0].spec.argv == argv
    assert service.pending is not None
    assert service.pending.argv == argv
    left.memory(None).close()


def test_a_stored_queue_is_known_by_what_it_is_and_not_by_its_number_alone() -> None:
    with opened(tcp()) as listener:
        listener.lease(1)
        queues = {f"http#{n}": [os.dup(listener.lease(n))] for n in (0, 1)}
        predecessor = Predecessor.of({**queues, "http": [os.dup(listener.lease(0))]})
        assert predecessor.names == {
            f"http#{n}": inode(queue) for n, queue in enumerate(listener.queues)
        }
        assert predecessor.own_queues == {"http": 2}
        for sock in predecessor.take_sockets().values():
            for each in sock:
                each.close()


# --- What a descriptor of a worker is ------------------------------------------------------------


def taken(descriptors: dict[str, list[int]]) -> Survivor:
    predecessor = Predecessor(descriptors)
    [found] = predecessor.take_strangers("web").values()
    assert not predecessor.descriptors
    return found


def closed(survivor: Survivor) -> None:
    survivor.process.close()
    for fd in (survivor.output, *(survivor.channel or ())):
        os.close(fd)


def test_the_name_of_a_descriptor_says_what_it_is_whatever_it_looks_like() -> None:
    pidfd, ours, its = os.pidfd_open(os.getpid()), *socket.socketpair()
    output = os.memfd_create("a file to which the worker prints")
    ends = ours.detach(), its.detach()
    found = taken(
        {
            "web@7.2/channel-of-worker": [ends[1]],
            "web@7.2/output": [output],
            "web@7.2/channel": [ends[0]],
            "web@7.2/pidfd": [pidfd],
        }
    )
    assert (found.process.pidfd, found.output, found.channel) == (pidfd, output, ends)
    closed(found)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_of_a_worker_that_an_earlier_version_stored_fstat_tells(order: Sequence[int]) -> None:
    ends = [end.detach() for end in socket.socketpair(type=socket.SOCK_SEQPACKET)]
    output, writer = os.pipe()
    fds = [os.pidfd_open(os.getpid()), output, *ends]
    found = unlabelled.roles([fds[n] for n in order], [os.fstat(fd).st_ino for fd in ends])
    names = ["pidfd", "output", "channel", "channel-of-worker"]
    assert found == dict(zip(names, fds, strict=True))
    for fd in (*fds, writer):
        os.close(fd)


def test_of_two_descriptors_for_one_end_the_later_counts_and_the_other_is_closed() -> None:
    pidfds = [os.pidfd_open(os.getpid()) for _ in range(2)]
    found = taken({"web@7.2": pidfds[:1], "web@7.2/pidfd": pidfds[1:], "web@7.2/output": []})
    assert found.process.pidfd == pidfds[1]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pidfds[0])
    found.process.close()


def test_a_worker_that_no_state_tells_of_is_as_old_as_its_process() -> None:
    earliest = time.monotonic()
    with subprocess.Popen(["sleep", "inf"]) as process:
        latest = time.monotonic()
        found = taken({"web@1.1/pidfd": [os.pidfd_open(process.pid)]})
        process.kill()
    found.process.close()
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert earliest - tick <= found.since <= latest + tick
