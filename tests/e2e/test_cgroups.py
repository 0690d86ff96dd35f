"""Workers in cgroups of their own, below one that is delegated to the manager, under load.

The kernel of a test may have no controllers for it, so what limits do is not tried here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.kernel import own_cgroups
from sockmgr.kernel.delegation import LEAF, Group
from sockmgr.kernel.procfs import descendants
from tests.e2e.apps import App
from tests.e2e.commands import UVICORN, config
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import wait_in_log
from tests.helpers.cgroups import real, removed
from tests.helpers.load import Load

LOAD = "short:rate=100"


@pytest.fixture
def ours() -> Iterator[Path]:
    """Return a cgroup that is delegated to the manager."""
    yield from real()


def under(ours: Path) -> tuple[str, ...]:
    """Return the command that becomes a manager in the upper cgroup, as systemd 252 starts one."""
    return "sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(ours)


def groups(manager: Manager) -> dict[int, str]:
    """Return the cgroup of each worker by its pid."""
    found = {worker["pid"]: own_cgroups.of(worker["pid"]) for worker in manager.workers()}
    return {pid: path.name for pid, path in found.items() if path}


def names(manager: Manager) -> set[str]:
    return {f"web@{each['generation']}.{each['slot']}" for each in manager.workers()}


def test_each_worker_has_a_cgroup_and_none_is_left_whatever_happens(
    ours: Path, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN), under=under(ours)) as manager:
        before = groups(manager)
        assert set(before.values()) == names(manager)
        with Load(manager.target(), [LOAD]) as load:
            for _ in range(2):
                manager.kill9()
                manager.start()
                manager.wait_serving()
                assert own_cgroups.of(manager.pid) == ours / LEAF
                assert groups(manager) == before
            assert manager.reload().code == 0
            wait_for(lambda: not before.keys() & groups(manager).keys(), "the old workers to end")
            after = groups(manager)
            assert set(after.values()) == names(manager)
            wait_for(
                lambda: {each.name for each in ours.glob("*@*")} == names(manager),
                "the cgroups of those that have ended to be removed",
            )
        assert not load.result.failed, load.result.failures()
        assert manager.stop() == 0
    assert not list(ours.glob("*@*"))


def test_a_manager_whose_cgroup_is_taken_away_serves_on_and_gets_workers_all_the_same(
    ours: Path, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN), under=under(ours)) as manager:
        before = groups(manager)
        with Load(manager.target(), [LOAD]) as load:
            limit = ours / "cgroup.max.descendants"
            limit.write_text("0")  # no cgroup can be made any more
            assert manager.reload().code == 0
            wait_for(lambda: not before.keys() & groups(manager).keys(), "the old workers to end")
            assert set(groups(manager).values()) == {LEAF}
            wait_in_log(manager, "no cgroup for a worker", "Resource temporarily unavailable")
            limit.write_text("max")
            assert manager.reload().code == 0
            wait_in_log(manager, "workers get cgroups again")
            wait_for(lambda: LEAF not in groups(manager).values(), "the old workers to end")
            assert set(groups(manager).values()) == names(manager)
            for pid in (*Group(ours).members(), *descendants(manager.pid)):
                Group(own_cgroups.root()).add(pid)
            wait_for(lambda: removed(ours), "the cgroup to be gone")
            before = groups(manager)
            assert manager.reload().code == 0
            wait_for(lambda: not before.keys() & groups(manager).keys(), "the old workers to end")
        assert not load.result.failed, load.result.failures()
        assert manager.log.count("no cgroup for a worker") == 2
        assert manager.stop() == 0


# Its daemon has left the session, the group and the parents of the worker.
LEAVES_A_DAEMON = (
    "import os, signal, socket, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        print('daemon', os.getpid(), flush=True)\n"
    "        os.closerange(3, 99)\n"
    "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "        time.sleep(600)\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "sock = socket.socket(fileno=3)\n"
    "while True:\n"
    "    sock.accept()[0].close()\n"
)


def test_a_daemon_that_only_the_cgroup_knows_ends_with_its_worker(
    ours: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(LEAVES_A_DAEMON)
    command = (sys.executable, "-S", "-E", str(program))
    words = ", ".join(f'"{word}"' for word in command)
    text = f'[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\ncommand = [{words}]\n'
    with Manager(tmp_path, text, under=under(ours)) as manager:
        (pid,) = groups(manager)
        daemon = int(wait_in_log(manager, "daemon").split()[-1])
        assert set(Group(ours / "web@1.1").members()) == {pid, daemon}
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{daemon}").exists(), "the daemon to end")
        wait_in_log(manager, "stray process killed", f"pid={daemon}", "left_by=web@1.1")
