"""Services of one reload that go together, under load: all of them are new, or none is."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from sockmgr.config.spec import Accept
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import answered, wait_in_log
from tests.e2e.programs.site import (
    NAMES,
    Asked,
    Site,
    generations,
    loaded,
    rollouts,
    settled,
)
from tests.helpers.load import Target

NOTIFY = 'ready = "notify"'
READY = "says ready"


@pytest.mark.parametrize("accept", [Accept.SHARED, Accept.PER_WORKER])
def test_nobody_answers_anew_before_all_can_and_then_all_do(accept: Accept, tmp_path: Path) -> None:
    site = Site(tmp_path, NOTIFY, f'accept = "{accept}"', fault=READY)
    with Manager(tmp_path, site.config()) as manager, loaded(manager) as loads:
        site.deploy("2", web=READY)
        gate = site.of["back"].hold("2")
        asked = Asked(manager, "--together")
        wait_in_log(manager, "worker ready", "web@2.1")
        assert {row.version for row in answered(loads["web"], count=30)} == {"1"}
        assert rollouts(manager) == {"web": "booting", "back": "booting"}
        gate.open()
        verdicts = asked.verdicts()
        assert [verdicts[name]["verdict"] for name in NAMES] == ["committed"] * 2
        for load in loads.values():
            answered(load, "2")


def test_all_go_back_if_one_does_not_start_and_the_asker_hears_which(tmp_path: Path) -> None:
    site = Site(tmp_path, top="[rollout]\ntogether = true")
    with Manager(tmp_path, site.config()) as manager, loaded(manager) as loads:
        site.deploy("2", back="exits")
        told = manager.say("reload")
        assert told.code == 1
        assert "back: generation 2 aborted" in told.stdout
        assert "giving up" in told.stdout
        went = "back failed, so the others went back together: web: generation 1 keeps serving"
        assert went in told.stdout.splitlines()
        for load in loads.values():
            answered(load, "1", count=3)
        settled(manager, 1)
        # And the next one, which is good, goes through.
        site.deploy("3")
        assert manager.reload().code == 0
        for load in loads.values():
            answered(load, "3")


def test_a_death_in_the_probation_of_one_takes_all_back(tmp_path: Path) -> None:
    site = Site(tmp_path, probation=20)
    with Manager(tmp_path, site.config()) as manager, loaded(manager) as loads:
        site.deploy("2")
        asked = Asked(manager, "--together")
        for load in loads.values():
            answered(load, "2")
        die(manager.target("back"))
        verdicts = asked.verdicts(code=1)
        assert (verdicts["web"]["failed"], verdicts["back"]["failed"]) == ("back", "")
        assert verdicts["web"]["reason"] == "back was taken back, and they go together"
        for load in loads.values():
            answered(load, "1", count=3)


def die(target: Target) -> None:
    """Have the worker that answers end right after the answer, with a bad status."""
    with socket.socket(target.family) as client:
        client.settimeout(30)
        client.connect(target.address)
        client.sendall(b"GET /do/die HTTP/1.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
@pytest.mark.parametrize("when", ["booting", "probation"])
def test_a_manager_that_is_killed_is_followed_by_one_that_ends_it_for_all_alike(
    when: str, good: bool, tmp_path: Path
) -> None:
    site = Site(tmp_path, NOTIFY, fault=READY, probation=3 if when == "probation" else 0.3)
    with Manager(tmp_path, site.config()) as manager, loaded(manager) as loads:
        site.deploy("2", web=READY)
        gate = site.of["back"].hold("2")
        asked = Asked(manager, "--together")
        wait_in_log(manager, "worker ready", "web@2.1")
        if when == "probation":
            gate.open()
            wait_in_log(manager, "cut-over", "service=back")
        target = manager.target("back")
        [booting] = [w["pid"] for w in manager.workers("back") if w["generation"] == 2]
        manager.kill9()
        asked.hang_up()
        if not good and when == "probation":
            die(target)
        elif not good:
            os.kill(booting, signal.SIGKILL)
        manager.start()
        manager.wait_serving()
        if when == "booting" and good:
            gate.open()
        settled(manager, 2 if good else 1)
        for load in loads.values():
            answered(load, "2" if good else "1", count=3)


def test_a_manager_that_is_killed_at_the_commit_of_one_is_followed_by_one_that_commits_all(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    with Manager(tmp_path, site.config()) as manager, loaded(manager) as loads:
        site.deploy("2")
        asked = Asked(manager, "--together")
        wait_in_log(manager, "committed", "generation=2")
        manager.kill9()
        asked.hang_up()
        manager.start()
        manager.wait_serving()
        settled(manager, 2)
        for load in loads.values():
            answered(load, "2", count=3)


def test_what_nobody_hears_any_more_is_replaced_when_all_have_committed(tmp_path: Path) -> None:
    site = Site(tmp_path, NOTIFY, fault=READY)
    with Manager(tmp_path, site.config()) as manager, loaded(manager) as loads:
        site.deploy("2", web=READY)
        gate = site.of["back"].hold("2")
        asked = Asked(manager, "--together")
        wait_in_log(manager, "worker ready", "web@2.1")
        manager.kill9(keeper=True)
        asked.hang_up()
        manager.start()
        manager.wait_serving()
        gate.open()
        site.of["back"].spoil(READY)
        settled(manager, 3)
        for load in loads.values():
            answered(load, "2", count=3)


def test_a_reload_meanwhile_waits_and_a_stop_takes_all_back(tmp_path: Path) -> None:
    site = Site(tmp_path, NOTIFY, fault=READY)
    with Manager(tmp_path, site.config()) as manager:
        site.deploy("2", web=READY)
        gate = site.of["back"].hold("2")
        first = Asked(manager, "--together")
        wait_in_log(manager, "worker ready", "web@2.1")
        second = Asked(manager, "web")
        gate.open()
        assert {v["verdict"] for v in first.verdicts().values()} == {"committed"}
        assert second.verdicts()["web"]["generation"] == 3
        site.deploy("4", web=READY)
        gate = site.of["back"].hold("4")
        last = Asked(manager, "--together")
        wait_in_log(manager, "worker ready", "web@4.1")
        assert manager.stop() == 0
        verdicts = last.verdicts(code=1)
        assert {v["reason"] for v in verdicts.values()} <= {
            "the manager is stopping",
            *(f"{name} was taken back, and they go together" for name in NAMES),
        }


def test_a_service_that_the_config_no_longer_has_stays_if_the_others_go_back(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    with Manager(tmp_path, site.config()) as manager, loaded(manager) as loads:
        site.of["web"].deploy("2", "exits")
        manager.config.write_text(site.config("web"))
        asked = Asked(manager, "--together").verdicts(code=1)
        assert list(asked) == ["web"]
        for load in loads.values():
            answered(load, "1", count=3)
        assert generations(manager) == {"web": 1, "back": 1}


@pytest.mark.parametrize(
    ("line", "why"), [("exclusive = true", "is exclusive"), ("surge = 1", "has surge = 1")]
)
def test_a_service_that_cannot_go_together_is_refused_with_the_reason(
    line: str, why: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, "workers = 2")
    text = site.config().replace("[service.back.rollout]\n", f"[service.back.rollout]\n{line}\n")
    with Manager(tmp_path, text) as manager:
        told = manager.say("reload", "--together")
        assert told.code == 1
        assert f"back cannot go together with others: it {why}" in told.stderr
        assert generations(manager) == {"web": 1, "back": 1}
        manager.config.write_text(text + "[rollout]\ntogether = true\n")
        checked = manager.say("check", "-c", str(manager.config))
        assert checked.code == 2
        assert f"rollout.together cannot be: service.back {why}" in checked.stderr
        wait_for(lambda: not rollouts(manager), "nothing to be under way")
