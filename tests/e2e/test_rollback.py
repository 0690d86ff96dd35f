"""`sockmgr rollback` and `history`: the release before serves again, and nobody is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Done, Manager, wait_for
from tests.e2e.package import Package
from tests.e2e.programs.release import Ask, Gate, Release, answered, serving, unharmed, wait_gone
from tests.e2e.releases import COMMANDS, Site
from tests.helpers.load import Load

LOAD = ("short:rate=60", "slow:conns=2,s=0.3")


def web(manager: Manager) -> dict[str, Any]:
    found: dict[str, Any] = manager.status()["services"]["web"]
    return found


def history(manager: Manager) -> dict[int, dict[str, Any]]:
    done = manager.run("history", "web")
    assert done.code == 0, done.stderr
    return {each["generation"]: each for each in done.answer}


def changes(manager: Manager) -> list[str]:
    done = manager.run("check", "-c", str(manager.config))
    assert done.code == 0, done.stderr
    return [change["text"] for change in done.answer["changes"]]


def committed(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.stderr or done.stdout
    (verdict,) = done.answer
    assert verdict["verdict"] == "committed"
    found: dict[str, Any] = verdict
    return found


def refused(manager: Manager, *arguments: str) -> str:
    """Ask for a rollback that is refused; return the reason."""
    before = serving(manager)
    done = manager.say("rollback", *arguments)
    assert done.code == 1, done.stdout
    assert serving(manager) == before
    return done.stderr


# --- The way back --------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", COMMANDS)
def test_the_release_before_serves_again_from_its_own_directory_and_nobody_is_refused(
    accept: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, accept)
    with Manager(tmp_path, site.config) as manager:
        with Load(manager.target(), LOAD) as load:
            answered(load, "1")
            site.deploy("2")
            committed(manager.reload())
            answered(load, "2")
            verdict = committed(manager.run("rollback"))
            assert (verdict["generation"], verdict["rollback"]) == (3, 1)
            answered(load, "1", count=3)
            assert web(manager)["rollback"] == 1
            assert site.current.readlink() == site.directory("2")
            # To and fro; and then by the config again, which still has the newest.
            assert committed(manager.run("rollback"))["rollback"] == 2
            answered(load, "2", count=3)
            assert committed(manager.run("rollback", "web", "--to", "1"))["rollback"] == 1
            back = "! service.web rollback to 1 → this config: rolling reload"
            doctor = manager.say("doctor", "-c", str(manager.config)).stderr
            assert "runs another config, so its workers are not held to this one" in doctor
            assert changes(manager) == [back]
            assert committed(manager.reload())["rollback"] == 0
            answered(load, "2", count=3)
            assert changes(manager) == []
        assert not load.result.failed, load.result.failures()
        wait_gone(manager)


def test_the_hook_of_a_rollback_is_that_of_then_and_knows_what_comes_back(tmp_path: Path) -> None:
    told = 'echo $SOCKMGR_GENERATION "$${SOCKMGR_ROLLBACK-forwards}" $(cat REVISION) >>../../told'
    hook = f"\n[service.web.hooks]\nbefore = {json.dumps(['sh', '-c', told])}\n"
    site = Site(tmp_path)
    with Manager(tmp_path, site.config + hook) as manager:
        site.deploy("2")
        committed(manager.reload())
        committed(manager.run("rollback"))
        heard = (tmp_path / "told").read_text().splitlines()
    assert heard == ["1 forwards r1", "2 forwards r2", "3 1 r1"]


def test_a_rollback_survives_the_manager_and_so_does_the_way_back(tmp_path: Path) -> None:
    package = Package(tmp_path)
    site = Site(tmp_path, more='release = { file = "REVISION" }')
    with Manager(tmp_path, site.config, code=tmp_path / "code") as manager:
        with Load(manager.target(), LOAD) as load:
            site.deploy("2")
            committed(manager.reload())
            manager.kill9()
            manager.start()
            manager.wait_serving()
            assert committed(manager.run("rollback"))["release"] == "r1"
            answered(load, "1")
            manager.kill9()
            manager.start()
            manager.wait_serving()
            # The next manager goes by the state, and the config has not changed.
            assert (web(manager)["rollback"], web(manager)["release"]) == (1, "r1")
            assert changes(manager) == ["! service.web rollback to 1 → this config: rolling reload"]
            package.install("9")
            assert manager.run("upgrade").code == 0
            wait_for(lambda: manager.status()["manager"]["version"] == "9", "the new version")
            assert committed(manager.run("rollback"))["rollback"] == 2
            answered(load, "2", count=3)
        assert not load.result.failed, load.result.failures()
        told = history(manager)
        assert [told[n]["verdict"] for n in (1, 2, 3, 4)] == ["committed"] * 4
        assert [told[n]["origin"] for n in (1, 2, 3, 4)] == [
            "start", "reload", "rollback", "rollback",
        ]  # fmt: skip
        assert [told[n]["directory"] for n in (1, 2, 3)] == [
            str(site.directory(version)) for version in ("1", "2", "1")
        ]
        # The durations are of one clock, whichever manager was there.
        assert told[4]["serves"]
        assert all(0 < told[n]["served"] < 300 for n in (1, 2, 3))


def test_a_manager_that_dies_during_a_rollback_leaves_it_to_the_next(tmp_path: Path) -> None:
    release = Release(tmp_path, fault="says ready")
    config = release.config("workers = 2", 'ready = "notify"')
    with Manager(tmp_path, config) as manager:
        release.deploy("2", "says ready")
        committed(manager.reload())
        first = tmp_path / "release-1"
        (first / "fault").write_text("waits for go")
        gate = Gate(first)
        with Load(manager.target(), LOAD[:1]) as load:
            Ask(manager, "Rollback").hang_up()
            wait_for(lambda: len(_of_rollback(manager)) == 2, "both workers of the rollback")
            manager.kill9()
            manager.start()
            wait_for(lambda: len(_of_rollback(manager)) == 2, "both to be adopted")
            gate.open()
            wait_for(lambda: web(manager)["generation"] == 3, "the rollback to be committed")
            answered(load, "1", count=3)
            assert web(manager)["rollback"] == 1
        assert not load.result.failed, load.result.failures()


def _of_rollback(manager: Manager) -> list[dict[str, Any]]:
    """Return the workers of generation 3; none while no manager answers."""
    try:
        return [worker for worker in manager.workers() if worker["generation"] == 3]
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        return []


# --- No way back ---------------------------------------------------------------------------------


def test_a_rollback_that_cannot_be_is_refused_with_the_reason_and_nothing_changes(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, "dispatch")  # which takes any listeners
    with Manager(tmp_path, site.config) as manager:
        assert "nothing is known of what ran before generation 1" in refused(manager)
        assert "there is no service nobody" in refused(manager, "nobody")
        site.deploy("broken", "import a_module_that_nobody_installed\n")
        assert manager.reload().code == 1
        assert "nothing is known of what ran before generation 1" in refused(manager)
        assert "generation 2 was aborted: worker 2." in refused(manager, "web", "--to", "2")
        site.deploy("3")
        committed(manager.reload())
        site.directory("1").rename(tmp_path / "elsewhere")
        with unharmed(manager):
            said = refused(manager)
        assert f"its directory {site.directory('1')} is gone" in said
        assert "generation 3 goes on" in said
        (tmp_path / "elsewhere").rename(site.directory("1"))
        more = 'admin = "tcp://127.0.0.2:0"\n[service.web]'
        manager.config.write_text(site.config.replace("[service.web]", more))
        committed(manager.reload())
        said = refused(manager, "web", "--to", "1")
        assert "admin was not there, and is tcp://127.0.0.2:0" in said
        failed = history(manager)[2]
        assert (failed["verdict"], failed["served"], failed["kept"]) == ("aborted", None, False)
        assert "exited with status" in failed["reason"]


def test_a_rollback_during_a_rollout_is_refused_and_a_reload_during_a_rollback_comes_after_it(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path, fault="says ready")
    with Manager(tmp_path, release.config('ready = "notify"')) as manager:
        release.deploy("2", "says ready")
        committed(manager.reload())
        first = tmp_path / "release-1"
        (first / "fault").write_text("waits for go")
        gate = Gate(first)
        back = Ask(manager, "Rollback")
        wait_for(lambda: _of_rollback(manager), "the worker of the rollback")
        assert "a rollout of web is under way" in refused(manager)
        reload = Ask(manager)
        gate.open()
        assert back.verdict()["rollback"] == 1
        verdict = reload.verdict()
        assert (verdict["generation"], verdict["rollback"]) == (4, 0)


def test_a_stop_forgets_what_there_was(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with Manager(tmp_path, site.config) as manager:
        site.deploy("2")
        committed(manager.reload())
        assert manager.stop() == 0
        manager.start()
        manager.wait_serving()
        assert "a stop of the manager forgets all" in refused(manager)


# --- Names ---------------------------------------------------------------------------------------


def test_the_name_that_a_command_prints_is_shown_everywhere_and_obeyed_nowhere(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, more='release = ["sh", "-c", "echo warning; cat REVISION"]')
    with Manager(tmp_path, site.config) as manager:
        wait_for(lambda: web(manager)["release"] == "r1", "the name of the first")
        site.deploy("2")
        (site.directory("2") / "REVISION").write_bytes(b"r2 \x1b[2J\xff" + b"x" * 500)
        committed(manager.reload())
        # No rollout waits for a name, so this one may come after the verdict.
        wait_for(lambda: web(manager)["release"] not in ("", "r1"), "the name of the second")
        name = web(manager)["release"]
        assert name.startswith("r2 \\x1b[2J\\xffxxx")
        assert len(name) == 100
        assert name in manager.say("status").stdout
        assert name in manager.say("history").stdout
        assert manager.events("release named", release=name)
        committed(manager.run("rollback"))
        wait_for(lambda: web(manager)["release"] == "r1", "the name of the first again")


def test_what_was_deployed_in_place_is_not_taken_for_the_release_before(tmp_path: Path) -> None:
    site = Site(tmp_path, more='release = { file = "REVISION" }')
    with Manager(tmp_path, site.config) as manager:
        (site.current / "REVISION").write_text("r2")
        committed(manager.reload())
        said = refused(manager)
        assert f"generation 1 was release r1, and {site.directory('1')} has r2 now" in said
        (site.current / "REVISION").write_text("r1")
        assert committed(manager.run("rollback"))["release"] == "r1"
        assert manager.events("committed", release="r1")


def test_a_file_that_a_link_leads_to_elsewhere_names_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, more='release = { file = "REVISION" }')
    (tmp_path / "secret").write_text("secret")
    (site.directory("1") / "REVISION").unlink()
    (site.directory("1") / "REVISION").symlink_to(tmp_path / "secret")
    with Manager(tmp_path, site.config) as manager:
        why = f"REVISION: it leads out of {site.directory('1')}"
        wait_for(lambda: manager.events("release has no name", why=why), why)
        assert web(manager)["release"] == ""


def test_a_name_that_cannot_be_found_is_told_in_the_log_and_the_rollout_goes_on(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, more='release = ["./name"]')
    with Manager(tmp_path, site.config) as manager:
        for script, why in (
            ("", "there is no program ./name that can be run"),
            ("echo no idea; exit 3", "exited with status 3: no idea"),
            (":", "it printed nothing"),
        ):
            number = web(manager)["generation"]
            if script:
                program = site.current / "name"
                program.write_text(f"#!/bin/sh\n{script}\n")
                program.chmod(0o755)
                committed(manager.reload())
                number += 1
            wait_for(
                lambda n=number, why=why: [
                    event for event in manager.events("release has no name", why=why)
                    if event["generation"] == n
                ],
                why,
            )  # fmt: skip
        assert web(manager)["release"] == ""
