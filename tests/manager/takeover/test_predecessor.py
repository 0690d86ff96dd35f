"""What is made of what a predecessor left, also where nobody can read its state."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from sockmgr.config.spec import Accept, Spec
from sockmgr.fleet.messages import State, WorkerId
from sockmgr.fleet.snapshot import ListenerSnapshot, ProcessSnapshot
from sockmgr.kernel.process import Process
from sockmgr.kernel.queues import inode
from sockmgr.launch.additions import LAUNCHER, UVICORN_LAUNCHER
from sockmgr.manager.takeover import unlabelled
from sockmgr.manager.takeover.lost_state import guessed
from sockmgr.manager.takeover.predecessor import Predecessor
from sockmgr.manager.takeover.state import boot_id
from sockmgr.manager.workers.survivor import Survivor
from tests.helpers.children import python
from tests.helpers.listeners import opened, tcp
from tests.helpers.states import memfd, state, worker


def survivor() -> Survivor:
    process = Process(os.getpid(), pidfd=-1)
    was = ProcessSnapshot(pid=process.pid, started=process.started, ready=True)
    return Survivor(process=process, outputs=(-1, -1), since=0.0, was=was)


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


@pytest.mark.parametrize("whose", ["config", "services"])
def test_a_state_that_lacks_listeners_of_its_own_is_none_to_go_on_with(whose: str) -> None:
    with opened(tcp()) as listener, python("import time; time.sleep(60)") as child:
        found = replace(state([worker(child.pid)]), boot_id=boot_id())
        spec = replace(found.services[0].generations[0].spec, listen=(listener.listen,))
        generation = replace(found.services[0].generations[0], spec=spec)
        services = (replace(found.services[0], generations=(generation,)),)
        lacking = {
            "config": replace(found, config=replace(found.config, listen=(listener.listen,))),
            "services": replace(found, services=services),
        }
        left = Predecessor.of({"@state": [memfd(lacking[whose])]})
        assert left.state is None
        assert left.flaw == "it lacks listeners that its own config or services have"
        left.close()


@pytest.mark.parametrize(
    ("own", "inodes", "flaw"),
    [
        (True, (), ""),
        (False, (), "there is none of this boot"),
        (True, (1, 2), "2 of the sockets that the state tells of are missing"),
    ],
)
def test_a_state_of_another_boot_or_without_its_sockets_is_none_to_go_on_with(
    own: bool, inodes: tuple[int, ...], flaw: str
) -> None:
    with opened(tcp()) as listener:
        listeners = (ListenerSnapshot(listen=listener.listen, inodes=inodes),)
        found = replace(state([]), boot_id=boot_id() if own else "another", listeners=listeners)
        left = Predecessor.of({"@state": [memfd(found)]})
    assert (left.state is not None, left.flaw) == (not flaw, flaw)
    left.close()


@pytest.mark.parametrize("there", ["a socket", "a file", "nothing"])
def test_a_notify_socket_that_has_lost_its_path_is_not_taken(there: str, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(path))
    fd = notify.detach()
    if there != "a socket":
        path.unlink()
    if there == "a file":
        path.touch()
    predecessor = Predecessor({"@notify": [fd]})
    taken = predecessor.take_notify(path)
    assert (taken is not None) is (there == "a socket")
    if taken:
        assert taken.fileno() == fd
        taken.close()
    else:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_queues_come_in_the_order_of_their_leases_and_no_worker_inherits_them() -> None:
    with opened(tcp()) as listener:
        for lease in range(11):
            listener.lease(lease)
        left = {f"http#{n}": [os.dup(queue.fileno())] for n, queue in enumerate(listener.queues)}
        for [fd] in left.values():
            os.set_inheritable(fd, True)  # as after execve(2)
        [found] = Predecessor(left).take_queues().values()
        assert list(map(inode, found)) == list(listener.inodes)
        assert not any(os.get_inheritable(sock.fileno()) for sock in found)
        for sock in found:
            sock.close()


def test_who_belongs_to_no_service_any_more_is_told_to_stop() -> None:
    with subprocess.Popen(["sleep", "inf"]) as process:
        Predecessor({"gone@1.1/pidfd": [os.pidfd_open(process.pid)]}).close()
        assert process.wait(10) == -signal.SIGTERM


def test_one_end_of_a_channel_is_of_no_use_without_the_other() -> None:
    ours, its = socket.socketpair()
    its.close()
    end = ours.detach()
    found = taken({"web@7.2/pidfd": [os.pidfd_open(os.getpid())], "web@7.2/channel": [end]})
    assert found.channel is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(end)
    closed(found)


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
    ("launcher", "ours"),
    [
        ("launch_granian.py", LAUNCHER),
        ("programs/launch_granian.py", LAUNCHER),
        ("programs/launch_uvicorn.py", UVICORN_LAUNCHER),
        ("programs/launch_other.py", "/opt/old/lib/sockmgr/programs/launch_other.py"),
    ],
)
def test_a_dead_worker_is_replaced_though_the_launcher_of_the_older_version_is_gone(
    launcher: str, ours: str
) -> None:
    launcher = f"/opt/old/lib/sockmgr/{launcher}"
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
    argv = ("/opt/python", ours, "--fd", "{http}", "app:app")
    assert service.generations[0].spec.argv == argv
    assert service.pending is not None
    assert service.pending.argv == argv
    left.memory(None).close()


@pytest.mark.parametrize("ready", [True, False])
def test_a_worker_that_had_said_that_it_is_ready_is_though_its_fleet_had_not_heard(
    ready: bool,
) -> None:
    with python("import signal; signal.pause()") as child:
        left = state([worker(child.pid, state=State.STARTING, ready=ready)])
        [found] = Predecessor({}).take_survivors(left.services[0]).values()
        assert found.was.ready is ready
        found.process.close()


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


@pytest.mark.parametrize("fresh", ["http#1'", "http#1"])
def test_where_no_state_tells_a_lease_has_the_queue_that_listens(fresh: str) -> None:
    with opened(tcp()) as listener:
        listener.lease(1)
        old = os.dup(listener.lease(1))
        listener.renew(1)
        first, renewed = map(os.dup, (listener.lease(0), listener.lease(1)))
        stale = ({"http#1", "http#1'"} - {fresh}).pop()
        predecessor = Predecessor.of({stale: [old], fresh: [renewed], "http#0": [first]})
        assert predecessor.own_queues == {"http": 2}
        [found] = predecessor.take_queues().values()
        assert list(map(inode, found)) == list(listener.inodes)
        for sock in found:
            sock.close()


# --- What a descriptor of a worker is ------------------------------------------------------------


def taken(descriptors: dict[str, list[int]]) -> Survivor:
    predecessor = Predecessor(descriptors)
    [found] = predecessor.take_strangers("web").values()
    assert not predecessor.descriptors
    return found


def closed(survivor: Survivor) -> None:
    survivor.process.close()
    for fd in (*survivor.outputs, *(survivor.channel or ())):
        if fd >= 0:
            os.close(fd)


def test_the_name_of_a_descriptor_says_what_it_is_whatever_it_looks_like() -> None:
    pidfd, ours, its = os.pidfd_open(os.getpid()), *socket.socketpair()
    output, stdout = (os.memfd_create("a file to which the worker prints") for _ in range(2))
    ends = ours.detach(), its.detach()
    found = taken(
        {
            "web@7.2/channel-of-worker": [ends[1]],
            "web@7.2/output": [output],
            "web@7.2/stdout": [stdout],
            "web@7.2/channel": [ends[0]],
            "web@7.2/pidfd": [pidfd],
        }
    )
    assert (found.process.pidfd, found.channel) == (pidfd, ends)
    assert found.outputs == (output, stdout)
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
