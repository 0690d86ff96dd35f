"""Workers that fail to start, die, hang, flood or leave processes behind: the verdict says what
happened, and what served before goes on serving without a lost request."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from sockmgr.api.records import EventKind
from tests.e2e.apps import ROOT
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import (
    LIGHT,
    Release,
    answered,
    serving,
    unharmed,
    wait_gone,
    wait_in_log,
)
from tests.helpers.load import Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A fault before readiness, and what the verdict must say of it."""

    fault: str
    reason: str
    output: tuple[str, ...]
    keys: tuple[str, ...] = ()


NOT_READY = r"worker 2\.1 was not ready within 3 s"
IMPATIENT = ("ready_timeout = 3",)
FAILURES = {
    "exits at once": Failure(
        fault="exits",
        reason=r"worker 2\.1 exited with status 7 before it was ready \(1 failed starts, 1 allow",
        output=(r"cannot reach the database", r"giving up"),
    ),
    "dies of SIGSEGV": Failure(
        fault="crashes",
        reason=r"worker 2\.1 was killed by signal 11 \(SEGV\) before it was ready",
        output=(r"about to crash",),
    ),
    "hangs without ever accepting": Failure(
        fault="hangs",
        keys=IMPATIENT,
        reason=NOT_READY,
        output=(
            r"looked at 1 process with 1 thread: 1 in clock_nanosleep; "
            r"1 of 1 listener not waited on, though held open",
        ),
    ),
    "closes its listener": Failure(
        fault="closes",
        keys=IMPATIENT,
        reason=NOT_READY,
        output=(r"1 of 1 listener not waited on, 1 not even held by any process",),
    ),
    "is stopped by SIGSTOP": Failure(
        fault="stops",
        keys=IMPATIENT,
        reason=NOT_READY,
        output=(r"about to be stopped", r"1 of 1 listener not waited on"),
    ),
    "daemonises": Failure(
        fault="daemonises",
        reason=r"worker 2\.1 exited with status 0 before it was ready",
        output=(r"went into the background.*foreground",),
    ),
    "floods stderr, then exits": Failure(
        fault="floods and exits",
        reason=r"exited with status 7 before it was ready",
        output=(r"the worker talks and talks", r"these were my last words"),
    ),
    "writes a line of 10 MB without newline": Failure(
        fault="says much and exits",
        reason=r"exited with status 7 before it was ready",
        output=(r"^\.\.\.x{16384}",),
    ),
    "sends garbage to NOTIFY_SOCKET": Failure(
        fault="babbles",
        keys=(*IMPATIENT, 'ready = "notify"'),
        reason=NOT_READY,
        output=(r"looked for READY=1 on NOTIFY_SOCKET from this worker; none came",),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_worker_that_fails_to_start_is_named_and_the_old_generation_goes_on(
    name: str, tmp_path: Path
) -> None:
    failure = FAILURES[name]
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        release.deploy("2", failure.fault)
        manager.config.write_text(release.config(*failure.keys))
        done = manager.reload()
        (verdict,) = done.answer
        assert done.code == 1
        assert (verdict["verdict"], verdict["generation"], verdict["kept"]) == ("aborted", 2, 1)
        assert re.search(failure.reason, verdict["reason"]), verdict["reason"]
        for pattern in failure.output:
            assert any(re.search(pattern, line) for line in verdict["output"]), verdict["output"]
        assert sum(map(len, verdict["output"])) < 400_000
        wait_in_log(manager, "aborted", "service=web", "generation=2", verdict["reason"])
        wait_gone(manager)


def test_a_person_reads_the_reason_the_last_lines_and_what_goes_on_serving(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        release.deploy("2", "exits")
        done = manager.say("reload")
        assert done.code == 1
        assert re.match(
            r"generation 2 aborted after \d+\.\d s: worker 2\.1 exited with status 7 before .*\n"
            r"generation 1 keeps serving\n"
            r"  cannot reach the database\n"
            r"  giving up\n",
            done.stdout,
        ), done.stdout


def test_a_start_is_tried_as_often_as_the_config_says(tmp_path: Path) -> None:
    release = Release(tmp_path)
    config = release.config(rollout=("max_failed_starts = 2",))
    with Manager(tmp_path, config) as manager, unharmed(manager):
        release.deploy("2", "exits")
        (verdict,) = manager.reload().answer
        assert "(2 failed starts, 2 allowed)" in verdict["reason"]
        assert len(re.findall(r"worker ended .*status 7", manager.log)) == 2


def test_a_worker_that_dies_in_probation_takes_the_reload_back_and_loses_no_request(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    config = release.config(rollout=("probation = 5",))
    many = "short:rate=400"  # so that some wait in its queue when it dies
    with Manager(tmp_path, config) as manager, unharmed(manager, many):
        release.deploy("2", "die")
        done = manager.reload()
        (verdict,) = done.answer
        assert done.code == 1
        assert re.search(
            r"worker 2\.1 exited with status 9, \d\.\d s after it was ready", verdict["reason"]
        )
        assert verdict["output"] == ["died in probation"]
        assert "worker ended worker=web@2.1" in manager.log
    # `unharmed` has seen: what had been sent to the dead worker was answered by the old ones.


def test_a_worker_that_ignores_term_is_killed_after_drain_timeout(tmp_path: Path) -> None:
    release = Release(tmp_path, fault="is deaf")
    with Manager(tmp_path, release.config("drain_timeout = 0.5")) as manager:
        _, (deaf,) = serving(manager)
        release.deploy("2")
        with Load(manager.target(), LIGHT) as load:
            assert manager.reload().code == 0
            answered(load, "2")
            wait_in_log(manager, "worker killed", "web@1.1", "not drained within 0.5 s")
            wait_in_log(manager, "worker ended", f"pid={deaf}", "signal 9 (KILL)")
        assert not load.result.failed
        wait_gone(manager)


def test_a_crash_loop_keeps_connections_waiting_until_a_reload_mends_it(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        release.spoil("exits")
        with Load(manager.target(), ["short:rate=20,timeout=20"], drain=20) as load:
            answered(load)
            (worker,) = serving(manager)[1]
            os.kill(worker, signal.SIGKILL)
            wait_in_log(manager, "worker ended", "web@1.1", "status 7")
            release.deploy("2")
            assert manager.reload().code == 0
            answered(load, "2", count=3)
        assert not load.result.lost, load.result.failures()


# --- Output --------------------------------------------------------------------------------------


class UnreadManager(Manager):
    """A manager whose stderr is a pipe that nobody reads."""

    def start(self, *arguments: str) -> None:
        read, write = os.pipe()
        self._unread = os.fdopen(read, "rb")
        argv = [*self._command("run"), "-c", str(self.config), *arguments]
        self._process = subprocess.Popen(
            argv, cwd=ROOT, env=self._env, stdin=subprocess.DEVNULL, stdout=write, stderr=write,
            start_new_session=True,
        )  # fmt: skip
        os.close(write)

    def close(self) -> None:
        super().close()
        self._unread.close()


@pytest.mark.parametrize("kind", [Manager, UnreadManager], ids=["to a file", "to nobody"])
def test_a_worker_that_floods_stderr_leaves_the_manager_responsive(
    kind: type[Manager], tmp_path: Path
) -> None:
    release = Release(tmp_path, fault="floods")
    with kind(tmp_path, release.config("drain_timeout = 1")) as manager, unharmed(manager):
        for _ in range(5):
            began = time.monotonic()
            manager.status()
            assert time.monotonic() - began < 1
        release.deploy("2", "exits")
        done = manager.reload()
        assert done.code == 1
        assert done.answer[0]["output"] == ["cannot reach the database", "giving up"]


def test_a_worker_that_waits_for_nobody_to_read_its_output_is_quoted_all_the_same(
    tmp_path: Path,
) -> None:
    """As without a manager, it waits in write(2); the manager does not, and has a deadline."""
    release = Release(tmp_path, fault="floods")
    config = release.config(*IMPATIENT, "drain_timeout = 1")
    with UnreadManager(tmp_path, config) as manager, unharmed(manager):
        release.deploy("2", "floods and exits")
        done = manager.reload()
        (verdict,) = done.answer
        assert done.code == 1
        assert re.search(NOT_READY, verdict["reason"])
        assert any("the worker talks and talks" in line for line in verdict["output"])


# --- Processes that are left behind -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["child", "daemon"])
def test_a_process_that_outlives_its_worker_never_takes_a_connection_of_a_later_generation(
    kind: str, tmp_path: Path
) -> None:
    """The child accepts from the worker's queue, too; as a daemon it has left its group."""
    release = Release(tmp_path, fault=f"leaves {kind}")
    with Manager(tmp_path, release.config("drain_timeout = 5")) as manager:
        with Load(manager.target(), LIGHT) as load:
            for version in ("2", "3", "4"):
                release.deploy(version)
                done = manager.reload()
                assert done.code == 0
                answered(load, version)
                wait_gone(manager)
                rows = load.result.rows
                late = [r for r in rows if r.began > done.ended_at and r.version != version]
                assert not [row for row in late if row.version]
        assert not load.result.failed, load.result.failures()
        wait_in_log(manager, "process told to stop", "left_by=web@1.1")


def test_of_many_daemons_that_a_failed_worker_leaves_none_escapes(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        release.deploy("2", "daemonises often")
        assert manager.reload().code == 1
        wait_gone(manager)


def test_a_daemon_stays_as_long_as_a_worker_shares_its_queue(tmp_path: Path) -> None:
    release = Release(tmp_path, fault="leaves daemon")
    with Manager(tmp_path, release.config("workers = 2")) as manager:
        first = manager.workers()[0]["pid"]
        release.spoil("none")
        os.kill(first, signal.SIGKILL)
        wait_in_log(manager, "worker ended", f"pid={first}")
        wait_for(lambda: first not in serving(manager)[1], "the worker to be replaced")
        manager.wait_serving()
        assert "stray process killed" not in manager.log
        release.deploy("2")
        assert manager.reload().code == 0
        wait_gone(manager)
        # Whose the other one is was seen when its worker was told to stop.
        assert len(manager.events(EventKind.STRAY_PROCESS_KILLED)) == 1
        assert len(manager.events("process told to stop")) == 1


def zombies(parent: int) -> list[int]:
    """Return the children of a process that are dead and not reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if entry.name.isdigit() and state == "Z" and int(ppid) == parent:
                found.append(int(entry.name))
    return found


def reaped(manager: Manager) -> int:
    """Return how many orphans the manager has reaped, by its events."""
    bursts = manager.events("descendants reaped")
    single = len(manager.events("descendant reaped"))
    return single + sum(int(burst["fields"]["number"]) for burst in bursts)


def test_no_zombie_remains_of_a_worker_that_leaves_zombies(tmp_path: Path) -> None:
    release = Release(tmp_path, fault="leaves zombies")
    with Manager(tmp_path, release.config()) as manager:
        (worker,) = serving(manager)[1]
        assert len(wait_for(partial(zombies, worker), "zombies of the worker")) == 5
        wait_for(lambda: reaped(manager) == 5, "five orphans")
        release.deploy("2")
        with Load(manager.target(), LIGHT) as load:
            assert manager.reload().code == 0
            wait_for(lambda: reaped(manager) == 10, "all ten")
            wait_for(lambda: not zombies(manager.pid), "no zombies")
        assert not load.result.failed
        assert manager.stop() == 0
