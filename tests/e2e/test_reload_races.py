"""Reloads, stops and signals at bad moments: one rollout runs, and every caller gets a verdict."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, varlink, wait_for
from tests.e2e.programs.release import (
    LIGHT,
    Ask,
    Release,
    answered,
    serving,
    wait_gone,
    wait_in_log,
)
from tests.helpers.load import Load

NOTIFY = 'ready = "notify"'


def start_rollout(manager: Manager) -> Ask:
    """Ask for a reload and return when its worker has been started."""
    ask = Ask(manager)
    wait_for(lambda: manager.status()["services"]["web"]["rollout"], "the rollout", timeout=10)
    return ask


def test_a_reload_during_a_reload_comes_after_it_and_both_get_their_own_verdict(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path, fault="says ready")
    with Manager(tmp_path, release.config(NOTIFY)) as manager:
        with Load(manager.target(), LIGHT) as load:
            gate = release.hold("2")
            first = start_rollout(manager)
            release.deploy("3", "says ready")
            second = Ask(manager)
            gate.open()
            assert [first.verdict()["generation"], second.verdict()["generation"]] == [2, 3]
            answered(load, "3")
        assert not load.result.failed
        wait_gone(manager)


def test_a_reload_that_fails_does_not_fail_the_one_behind_it(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config("ready_timeout = 5")) as manager:
        with Load(manager.target(), LIGHT) as load:
            release.deploy("2", "hangs")
            first = start_rollout(manager)
            release.deploy("3")
            second = Ask(manager)
            assert (first.verdict()["verdict"], second.verdict()["verdict"]) == (
                "aborted", "committed",
            )  # fmt: skip
            answered(load, "3")
        assert not load.result.failed
        assert serving(manager)[0] == 3


def test_fifty_reloads_at_once_build_two_generations_and_each_caller_gets_a_verdict_on_its_change(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path, fault="says ready")
    with Manager(tmp_path, release.config(NOTIFY)) as manager:
        with Load(manager.target(), LIGHT) as load:
            gate = release.hold("2")
            asks = [start_rollout(manager)]
            for version in range(3, 52):
                release.deploy(str(version), "says ready")
                asks.append(Ask(manager))
            # All are there when the first has not ended: the status is answered after them.
            manager.status()
            gate.open()
            verdicts = [ask.verdict() for ask in asks]
            answered(load, "51", count=3)
        assert not load.result.failed
        assert {verdict["verdict"] for verdict in verdicts} == {"committed"}
        assert [verdict["generation"] for verdict in verdicts] == [2, *[3] * 49]
        # What answers now is the last change, and so has that of everybody who was told 3.
        assert serving(manager)[0] == 3
        wait_gone(manager)


def test_a_reload_goes_on_when_its_caller_has_left(tmp_path: Path) -> None:
    release = Release(tmp_path, fault="says ready")
    with Manager(tmp_path, release.config(NOTIFY)) as manager:
        with Load(manager.target(), LIGHT) as load:
            gate = release.hold("2")
            start_rollout(manager).hang_up()
            gate.open()
            answered(load, "2")
            wait_in_log(manager, "committed", "generation=2")
        assert not load.result.failed
        assert "Traceback" not in manager.log


# --- Signals -------------------------------------------------------------------------------------


def test_hup_twice_serves_what_was_deployed_last(tmp_path: Path) -> None:
    release = Release(tmp_path, fault="says ready")
    with Manager(tmp_path, release.config(NOTIFY)) as manager:
        with Load(manager.target(), LIGHT) as load:
            gate = release.hold("2")
            os.kill(manager.pid, signal.SIGHUP)
            wait_in_log(manager, "worker started", "web@2.1")
            release.deploy("3", "says ready")
            os.kill(manager.pid, signal.SIGHUP)
            wait_for(
                lambda: len(manager.events("signal", received="SIGHUP")) == 2, "the second signal"
            )
            gate.open()
            answered(load, "3", count=3)
            wait_in_log(manager, "committed", "generation=3")
        assert not load.result.failed
        wait_gone(manager)


def test_hup_with_a_broken_config_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        before = serving(manager)
        with Load(manager.target(), LIGHT) as load:
            manager.config.write_text("nonsense")
            os.kill(manager.pid, signal.SIGHUP)
            wait_in_log(manager, "reload refused", "this is not TOML")
            answered(load)
        assert not load.result.failed
        assert serving(manager) == before


def test_term_during_a_reload_ends_both_and_tells_the_caller(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        release.deploy("2", "hangs")
        ask = start_rollout(manager)
        os.kill(manager.pid, signal.SIGTERM)
        verdict = ask.verdict()
        assert (verdict["verdict"], verdict["reason"]) == ("aborted", "the manager is stopping")
        assert manager.wait(10) == 0
        wait_for(lambda: not manager.leftovers(), "every process to end")
        assert not manager.control.exists()


def test_a_reload_during_a_stop_is_refused(tmp_path: Path) -> None:
    release = Release(tmp_path, fault="is deaf")
    with Manager(tmp_path, release.config("drain_timeout = 3")) as manager:
        os.kill(manager.pid, signal.SIGTERM)
        wait_in_log(manager, "worker draining", "why=stop")
        done = manager.say("reload")
        assert done.code == 1
        assert done.stderr == "error: the manager is stopping\n  nothing was changed\n"
        assert manager.wait(10) == 0


def test_a_reload_that_waits_is_told_when_the_manager_stops(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        release.deploy("2", "hangs")
        first = start_rollout(manager)
        release.deploy("3")
        second = Ask(manager)
        manager.status()
        os.kill(manager.pid, signal.SIGTERM)
        for ask in (first, second):
            verdict = ask.verdict()
            assert (verdict["verdict"], verdict["reason"]) == ("aborted", "the manager is stopping")
        assert manager.wait(10) == 0


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGQUIT,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGQUIT)],
    ids=["QUIT", "INT twice", "TERM, then QUIT"],
)
def test_an_impatient_stop_kills_workers_that_do_not_listen(
    signals: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    release = Release(tmp_path, fault="is deaf")
    with Manager(tmp_path, release.config("drain_timeout = 60")) as manager:
        began = time.monotonic()
        for number, each in enumerate(signals, start=1):
            os.kill(manager.pid, each)
            if number < len(signals):
                wait_in_log(manager, "worker draining", "why=stop")
        assert manager.wait(10) == 0
        assert time.monotonic() - began < 5
        wait_for(lambda: not manager.leftovers(), "every process to end")
        wait_in_log(manager, "worker killed", "why='stop now'")


def test_ttin_and_ttou_scale_by_one_and_never_to_none(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        with Load(manager.target(), LIGHT) as load:
            os.kill(manager.pid, signal.SIGTTIN)
            wait_for(lambda: len(manager.workers()) == 2, "a second worker", timeout=10)
            manager.wait_serving()
            answered(load)
            os.kill(manager.pid, signal.SIGTTOU)
            wait_for(lambda: len(manager.workers()) == 1, "one worker", timeout=10)
            answered(load)
            os.kill(manager.pid, signal.SIGTTOU)
            wait_in_log(manager, "scale refused", "web cannot have 0 workers")
            answered(load)
        assert not load.result.failed
        assert serving(manager)[0] == 1


def test_no_client_can_ask_for_more_workers_than_a_config_could(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config()) as manager:
        for workers in (10_001, 2**31 - 1, -(2**31), 0):
            with pytest.raises(RuntimeError, match=f"cannot have {workers} workers"):
                varlink(manager.control, "Scale", {"service": "web", "workers": workers})
        assert len(manager.workers()) == 1
