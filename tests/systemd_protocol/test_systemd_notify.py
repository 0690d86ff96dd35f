"""What systemd is told by a manager, in which order, and what it is never told."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sockmgr.api.records import EventKind
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import Ask, Release, wait_in_log
from tests.helpers.fake_systemd import FakeSystemd
from tests.helpers.python_systemd import hidden_python_systemd

SERVES = "web: generation 1, 1/1 workers, 0 draining"
SERVES_NEXT = "web: generation 2, 1/1 workers, 0 draining"
STATES = ("READY", "RELOADING", "STOPPING", "BARRIER")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    with FakeSystemd(tmp_path) as found:
        yield found


def managed(systemd: FakeSystemd, config: str, more: Mapping[str, str] | None = None) -> Manager:
    """Return a manager that is a service of this systemd."""
    return Manager(systemd.path.parent, config, env={**systemd.env, **(more or {})})


@contextlib.contextmanager
def starting(manager: Manager) -> Iterator[Manager]:
    """Start a manager that does not serve yet."""
    with contextlib.closing(manager):
        manager.start()
        yield manager


def states(systemd: FakeSystemd) -> list[str]:
    """Return the states that were told, in order."""
    return [state for told in systemd.told for state in STATES if state in told]


# --- READY and STATUS ----------------------------------------------------------------------------


def test_ready_is_said_when_the_last_service_serves_and_the_status_tells_of_each(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    (tmp_path / "fast").mkdir()
    release, fast = Release(tmp_path), Release(tmp_path / "fast")
    gate = release.hold("slow")
    config = (
        '[listen]\na = "tcp://127.0.0.1:0"\nb = "tcp://127.0.0.2:0"\n'
        + release.service('listen = ["a"]', 'ready = "notify"')
        + fast.service('listen = ["b"]', name="fast")
    )
    with starting(managed(systemd, config)):
        systemd.wait_status(
            "web: generation 1, 0/1 workers, 0 draining; "
            "fast: generation 1, 1/1 workers, 0 draining"
        )
        assert not systemd.having("READY")
        gate.open()
        systemd.wait("READY")
        assert systemd.status == f"{SERVES}; {SERVES.replace('web', 'fast')}"
    assert len(systemd.having("READY")) == 1


def test_a_status_is_sent_when_it_changed_and_only_then(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    with managed(systemd, Release(tmp_path).config()) as manager:
        systemd.wait("READY")
        manager.run("scale", "web", "2")
        systemd.wait_status("web: generation 1, 2/2 workers, 0 draining")
        before = len(systemd.statuses)
        os.kill(manager.workers()[0]["pid"], signal.SIGKILL)
        systemd.wait_status("web: generation 1, 1/2 workers, 0 draining", after=before)
        systemd.wait_status("web: generation 1, 2/2 workers, 0 draining", after=before)
    both = zip(systemd.statuses, systemd.statuses[1:], strict=False)
    assert all(first != second for first, second in both), systemd.statuses


def test_all_messages_come_from_the_main_process_and_the_last_waits_until_they_are_read(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    with managed(systemd, Release(tmp_path).config()) as manager:
        systemd.wait("READY")
        assert manager.reload().code == 0
        manager.stop()
        assert {told.pid for told in systemd.told} == {manager.pid}
    *before, last = systemd.told
    assert (dict(last.fields), last.fds) == ({"BARRIER": "1"}, 1)
    assert all("FDSTORE" in told.fields for told in before if told.fds)


def test_a_start_that_fails_tells_why(tmp_path: Path, systemd: FakeSystemd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        config = Release(tmp_path).config(address=address)
        with starting(managed(systemd, config)) as manager:
            assert manager.wait() == 1
    told = systemd.wait("ERRNO")
    assert told.fields["ERRNO"] == str(errno.EADDRINUSE)
    assert told.status == f"cannot start: cannot listen on {address}: address already in use"
    assert states(systemd) == ["BARRIER"]


# --- Reloads -------------------------------------------------------------------------------------


def test_a_reload_by_hup_is_told_with_its_time_and_ended_by_ready(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    release = Release(tmp_path)
    with managed(systemd, release.config()) as manager:
        systemd.wait("READY")
        before = time.monotonic_ns() // 1000
        os.kill(manager.pid, signal.SIGHUP)
        reloading = systemd.wait("RELOADING")
        assert before <= int(reloading.fields["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert reloading.status == f"{SERVES} (reloading)"
        ready = systemd.wait("READY", 2)
        assert ready.status.startswith("web: generation 2, 1/1 workers, ")
        assert ready.status.endswith("draining (reload committed)")
        systemd.wait_status(SERVES_NEXT)
    assert states(systemd) == ["READY", "RELOADING", "READY", "STOPPING", "BARRIER"]
    assert f"{SERVES}, generation 2 booting, 0/1 ready (reloading)" in systemd.statuses


def test_a_reload_that_exec_reload_may_have_asked_for_is_told_in_the_status_only(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    """In the state that RELOADING=1 leads to then, systemd 254 and 257 restart no dead manager."""
    with managed(systemd, Release(tmp_path).config()) as manager:
        systemd.wait("READY")
        assert manager.reload().code == 0
        systemd.wait_status(SERVES_NEXT)
    assert f"{SERVES} (reloading)" in systemd.statuses
    assert not systemd.having("RELOADING")


def test_an_aborted_reload_ends_with_ready_and_the_reason_stays_to_be_seen(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    release = Release(tmp_path)
    with managed(systemd, release.config()) as manager:
        systemd.wait("READY")
        release.deploy("2", "exits")
        assert manager.reload().code == 1
        reason = "(reload aborted: web: worker 2.1 exited with status 7 before it was ready"
        assert reason in systemd.wait("READY", 2).status
        before = len(systemd.statuses)
        os.kill(manager.workers()[0]["pid"], signal.SIGKILL)
        systemd.wait_status(lambda status: "0/1 workers" in status, after=before)
        systemd.wait_status(lambda status: status.startswith(f"{SERVES} {reason}"), after=before)
        release.deploy("3")
        assert manager.reload().code == 0
        systemd.wait_status("web: generation 3, 1/1 workers, 0 draining")
    assert not systemd.having("ERRNO")


def test_a_refused_reload_ends_with_ready_and_an_errno_until_one_is_not_refused(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    config = Release(tmp_path).config()
    with managed(systemd, config) as manager, socket.create_server(("127.0.0.1", 0)) as taken:
        systemd.wait("READY")
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        manager.config.write_text(config.replace("[listen]", f'[listen]\nnew = "{address}"'))
        os.kill(manager.pid, signal.SIGHUP)
        refused = systemd.wait("READY", 2)
        assert refused.fields["ERRNO"] == str(errno.EADDRINUSE)
        why = f"cannot listen on {address}: address already in use"
        assert refused.status == f"{SERVES} (reload refused: {why})"
        manager.config.write_text("this is no config\n")
        os.kill(manager.pid, signal.SIGHUP)
        assert "(reload refused: " in systemd.wait("READY", 3).status
        manager.config.write_text(config)
        assert manager.reload().code == 0
        assert systemd.wait("ERRNO", 2).fields["ERRNO"] == "0"
    assert states(systemd)[:6] == ["READY", *["RELOADING", "READY"] * 2, "READY"]


def test_of_reloads_that_overlap_each_is_told_and_ready_comes_after_the_last(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    release = Release(tmp_path, fault="says ready")
    with managed(systemd, release.config('ready = "notify"')) as manager:
        systemd.wait("READY")
        gate = release.hold("2")
        first = Ask(manager)
        systemd.wait_status(f"{SERVES} (reloading)")
        wait_in_log(manager, "worker started", "web@2.1")  # of what is deployed until then
        release.deploy("3", "says ready")
        os.kill(manager.pid, signal.SIGHUP)
        systemd.wait("RELOADING")
        config = manager.config.read_text()
        manager.config.write_text("this is no config\n")
        os.kill(manager.pid, signal.SIGHUP)  # refused at once
        systemd.wait("RELOADING", 2)
        wait_in_log(manager, "reload refused")
        manager.config.write_text(config)
        gate.open()
        assert first.verdict()["generation"] == 2
        told = systemd.wait("READY", 2).status
    assert "(reload refused: " in told
    assert told.endswith("; reload committed)")
    assert states(systemd)[:4] == ["READY", "RELOADING", "RELOADING", "READY"]
    times = [int(told.fields["MONOTONIC_USEC"]) for told in systemd.having("RELOADING")]
    assert times == sorted(set(times))


def test_a_reload_before_the_first_ready_is_not_told_as_one(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    release = Release(tmp_path, fault="exits")
    with starting(managed(systemd, release.config())) as manager:
        wait_in_log(manager, "worker ended", "exit")
        assert manager.reload().code == 1
        systemd.wait_status(lambda status: "(reload aborted: web: " in status)
        assert not states(systemd)
        release.deploy("2")
        assert manager.reload().code == 0
        systemd.wait("READY")
    assert states(systemd)[0] == "READY"
    assert not systemd.having("RELOADING")


def test_a_rollout_is_given_the_time_that_its_own_deadline_allows(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    release = Release(tmp_path, fault="says ready")
    with managed(systemd, release.config('ready = "notify"', "ready_timeout = 40")) as manager:
        systemd.wait("READY")
        gate = release.hold("2")
        ask = Ask(manager)
        extended = systemd.wait("EXTEND_TIMEOUT_USEC")
        rollout = manager.status()["services"]["web"]["rollout"]
        # A worker has 40 s, and the rollout twice that; then it takes 5 s to end.
        assert rollout["deadline"] == pytest.approx(40, abs=2)
        assert int(extended.fields["EXTEND_TIMEOUT_USEC"]) / 1e6 == pytest.approx(2 * 40 + 5, abs=2)
        gate.open()
        ask.verdict()


# --- Stops ---------------------------------------------------------------------------------------


def test_a_stop_is_told_and_extended_once_to_the_deadline_of_the_drain(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    config = Release(tmp_path, fault="is deaf").config("drain_timeout = 1")
    with managed(systemd, config) as manager:
        systemd.wait("READY")
        os.kill(manager.pid, signal.SIGTERM)
        assert systemd.wait("STOPPING").status == f"{SERVES} (stopping)"
        assert manager.wait() == 0
    assert "web: 1 draining (stopping)" in systemd.statuses
    (extended,) = systemd.having("EXTEND_TIMEOUT_USEC")
    assert 5 < int(extended.fields["EXTEND_TIMEOUT_USEC"]) / 1e6 <= 6
    assert states(systemd) == ["READY", "STOPPING", "BARRIER"]


def test_a_stop_that_is_delayed_is_told_at_once_with_the_time_that_it_takes(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    config = "stop_delay = 60\n" + Release(tmp_path).config("drain_timeout = 10")
    with managed(systemd, config) as manager:
        systemd.wait("READY")
        os.kill(manager.pid, signal.SIGTERM)
        assert systemd.wait("STOPPING").status == f"{SERVES} (stopping)"
        extended = systemd.wait("EXTEND_TIMEOUT_USEC")
        assert 70 < int(extended.fields["EXTEND_TIMEOUT_USEC"]) / 1e6 <= 75
        os.kill(manager.pid, signal.SIGTERM)
        assert manager.wait() == 0


def test_a_stop_before_everything_serves_is_never_followed_by_ready(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    with starting(managed(systemd, Release(tmp_path, fault="hangs").config())) as manager:
        wait_in_log(manager, "worker started")
        os.kill(manager.pid, signal.SIGTERM)
        assert manager.wait() == 0
    assert states(systemd) == ["STOPPING", "BARRIER"]
    assert "never retrieved" not in manager.log


def test_a_stop_in_a_reload_is_final(tmp_path: Path, systemd: FakeSystemd) -> None:
    release = Release(tmp_path, fault="is deaf")
    with managed(systemd, release.config("drain_timeout = 1")) as manager:
        systemd.wait("READY")
        release.deploy("2", "hangs")
        ask = Ask(manager)
        systemd.wait_status(f"{SERVES} (reloading)")
        os.kill(manager.pid, signal.SIGTERM)
        systemd.wait("STOPPING")
        os.kill(manager.pid, signal.SIGHUP)
        wait_in_log(manager, "reload refused", "the manager is stopping")
        assert ask.verdict()["reason"] == "the manager is stopping"
        assert manager.wait() == 0
    assert states(systemd) == ["READY", "STOPPING", "BARRIER"]


def test_a_drain_after_a_reload_asks_systemd_for_no_time(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    release = Release(tmp_path, fault="is deaf")
    with managed(systemd, release.config("drain_timeout = 0.5")) as manager:
        systemd.wait("READY")
        release.deploy("2")
        assert manager.reload().code == 0
        ready = systemd.wait("READY", 2)
        systemd.wait_status(SERVES_NEXT)
        after = systemd.told[systemd.told.index(ready) :]
        assert not [told for told in after if "EXTEND_TIMEOUT_USEC" in told]


# --- The watchdog, and what workers get ----------------------------------------------------------


def test_the_watchdog_is_fed_at_half_its_interval_from_ready_on(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    with managed(systemd, Release(tmp_path).config(), {"WATCHDOG_USEC": "600000"}):
        systemd.wait("WATCHDOG", 4)
        ready, pings = systemd.wait("READY"), systemd.having("WATCHDOG")[:4]
    assert ready.at < pings[0].at
    # 0.3 s each, and never early: the clock of a busy machine only adds.
    assert 0.8 < pings[3].at - pings[0].at < 1.8


def test_workers_get_nothing_of_systemds_conversation_with_the_manager(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    meant_for_us = {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1", "FDSTORE": "8"}
    release = Release(tmp_path, fault="says ready")
    with managed(systemd, release.config('ready = "notify"'), meant_for_us) as manager:
        (worker,) = manager.workers()
        environ = Path(f"/proc/{worker['pid']}/environ").read_bytes().split(b"\0")
    env = dict(pair.split(b"=", 1) for pair in environ if pair)
    assert env[b"NOTIFY_SOCKET"] == os.fsencode(manager.control.with_suffix(".notify"))
    assert not {name for name in env if name.startswith((b"WATCHDOG", b"FDSTORE"))}


# --- When systemd cannot be told -----------------------------------------------------------------


def test_a_systemd_that_is_gone_is_warned_of_once_and_stops_nobody(tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    with Manager(tmp_path, Release(tmp_path).config(), env=env) as manager:
        assert manager.reload().code == 0
        wait_for(lambda: len(manager.workers()) == 1, "the old worker to leave")
        assert len(manager.events(EventKind.SYSTEMD_CANNOT_BE_TOLD)) == 1


def test_without_python_systemd_systemd_hears_the_same(
    tmp_path: Path, systemd: FakeSystemd
) -> None:
    env = {"PYTHONPATH": str(hidden_python_systemd(tmp_path))}
    with starting(managed(systemd, Release(tmp_path).config(), env)) as manager:
        systemd.wait_status(SERVES)
        assert manager.run("stop").code == 0
        assert manager.wait() == 0
    assert states(systemd) == ["READY", "STOPPING", "BARRIER"]
