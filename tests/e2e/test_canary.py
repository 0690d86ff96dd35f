"""A canary under load: its share, its end by itself and by hand, and what its end costs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from sockmgr.config.spec import Accept
from tests.canary import asked, canary, config, play, who_answers
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import answered
from tests.helpers.load import Load

LOAD = "short:rate=60"
HELD = ("reload", "--canary", "10%", "--hold")


@pytest.mark.parametrize("accept", Accept)
def test_a_canary_gets_its_share_to_a_connection_and_all_of_them_when_it_is_promoted(
    accept: Accept, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, accept)) as manager:
        app.deploy("2")
        with asked(manager, *HELD) as ended:
            wait_for(lambda: canary(manager), "the canary")
            exact = accept is Accept.DISPATCH or "round robin" in str(manager.status()["listeners"])
            counts = who_answers(manager.target(), 400)
            # At random it is further off once in a hundred thousand times.
            assert abs(counts["2"] - 40) <= (2 if exact else 27), counts
            with Load(manager.target(), [LOAD]) as load:
                answered(load, count=20)
                done = manager.run("promote")
                answered(load, count=20)
                result = load.stop()
        assert done.code == ended().code == 0, done.stderr
        assert done.answer[0]["verdict"] == ended().answer[0]["verdict"] == "committed"
        # Of the rollout, not of the decision.
        assert done.answer[0]["seconds"] == ended().answer[0]["seconds"]
        assert not result.failed, result.failures()
        assert who_answers(manager.target(), 20).keys() == {"2"}
        assert manager.events("canary promoted", generation=2, service="web")  # type: ignore[arg-type]


@pytest.mark.parametrize("accept", Accept)
def test_one_that_is_aborted_by_hand_or_by_a_failed_check_costs_no_request(
    accept: Accept, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    smoke = "test -e well || { echo the door is shut; exit 3; }"
    fails = f'canary = {{ share = "50%", check = ["sh", "-c", "{smoke}"] }}'
    with (
        Manager(tmp_path, config(app, accept, fails)) as manager,
        Load(manager.target(), [LOAD]) as load,
    ):
        app.deploy("2")
        done = manager.reload()
        assert done.code == 1
        (verdict,) = done.answer
        assert verdict["reason"] == (
            "its check did not pass: exited with status 3: the door is shut"
        )
        (app.directory / "well").touch()
        with asked(manager, *HELD) as ended:
            wait_for(lambda: canary(manager), "the canary")
            answered(load, count=20)
            done = manager.run("abort", "--reason", "the graphs")
        assert done.code == 0
        assert ended().code == 1
        assert done.answer[0]["reason"].endswith(": the graphs")
        assert ended().answer[0]["reason"] == done.answer[0]["reason"]
        answered(load, count=20)
        result = load.stop()
        assert not result.failed, result.failures()
        assert who_answers(manager.target(), 20).keys() == {"1"}


@pytest.mark.parametrize("accept", Accept)
def test_its_check_asks_the_new_workers_alone(accept: Accept, tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    asks = "for n in $(seq 20); do curl -sS -m 20 $SOCKMGR_PROBE_URL/version >>told || exit; done"
    checked = f'canary = {{ share = "10%", for = "5m", check = ["sh", "-c", "{asks}; exit 3"] }}'
    with Manager(tmp_path, config(app, accept, checked)) as manager:
        assert who_answers(manager.target(), 5).keys() == {"1"}
        app.deploy("2")
        done = manager.reload()
        assert done.answer[0]["reason"] == "its check did not pass: exited with status 3"
        told = (app.directory / "told").read_text()
        answers = json.loads(f"[{told.replace('}{', '},{')}]")
        assert [each["version"] for each in answers] == ["2"] * 20
        if accept is not Accept.SHARED:  # where who is first takes it
            assert len({each["pid"] for each in answers}) == 2


def test_one_that_dies_and_one_that_a_newer_reload_replaces_are_taken_back_and_say_why(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, Accept.SHARED)) as manager:
        app.deploy("2")
        with asked(manager, *HELD) as ended:
            wait_for(lambda: canary(manager), "the canary")
            newest = max(manager.workers(), key=lambda worker: worker["generation"])
            os.kill(newest["pid"], signal.SIGKILL)
        assert ended().code == 1
        assert "was killed by signal 9 (KILL)" in ended().answer[0]["reason"]
        app.deploy("3")
        with asked(manager, *HELD) as ended:
            wait_for(lambda: canary(manager), "the canary")
            app.deploy("4")
            newer = manager.reload()
        assert ended().answer[0]["reason"] == "a newer reload takes its place"
        assert newer.code == 0, newer.stderr
        for verdict in (ended().answer[0], newer.answer[0]):  # each measured for itself
            assert verdict["receipt"]["cutover"] == "steered"
        assert who_answers(manager.target(), 20).keys() == {"4"}


def test_who_waits_for_a_verdict_has_it_from_the_next_manager_if_this_one_is_killed(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, Accept.SHARED)) as manager:
        for version, verb, verdict in (("2", "promote", "committed"), ("3", "abort", "aborted")):
            app.deploy(version)
            with asked(manager, *HELD) as ended:
                wait_for(lambda: canary(manager), "the canary")
                manager.kill9()
                manager.start()
                manager.wait_serving()
                wait_for(lambda: canary(manager), "the canary under the next manager")
                assert manager.run(verb).code == 0
            assert ended().code == (verdict == "aborted")
            assert [each["verdict"] for each in ended().answer] == [verdict]
            assert ended().answer[0]["generation"] == int(version)
            assert "waiting for the next one" in ended().stderr


def test_a_decision_about_nothing_is_an_error_that_says_so_and_a_stop_ends_a_held_canary(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, Accept.SHARED)) as manager:
        for verb, instead in (("promote", "reload --canary 10%"), ("abort", "sockmgr rollback")):
            told = manager.say(verb).stderr
            assert "no rollout is under way" in told
            assert instead in told
            assert "no rollout of web is under way" in manager.say(verb, "web").stderr
            assert "there is no service job" in manager.say(verb, "job").stderr
        done = manager.say("reload", "--hold")
        assert done.code == 2
        assert "--canary 10%" in done.stderr
        with asked(manager, *HELD) as ended:
            wait_for(lambda: canary(manager), "the canary")
            assert "canary 10 %, held for" in manager.say("status").stdout
            assert "a canary of web is held" in manager.say("upgrade").stderr
            assert manager.stop() == 0
        assert ended().code == 1
        assert "the manager is stopping" in ended().answer[0]["reason"]


@pytest.mark.parametrize(
    ("where", "accept"),
    [
        ("its check runs", Accept.SHARED),
        ("it gets its next share", Accept.PER_WORKER),
        ("it is aborted", Accept.DISPATCH),
    ],
)
def test_a_manager_that_is_killed_in_the_middle_is_followed_by_one_that_goes_on_with_it(
    where: str, accept: Accept, tmp_path: Path
) -> None:
    requests, failed, how = play(tmp_path, accept, where)
    assert not failed, f"{how} of {requests}"
