"""`sockmgr check` against a real manager: what it says would change is what a reload changes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Manager
from tests.e2e.programs.release import Release, wait_in_log

CONFIG = """\
[listen]
http = "tcp://127.0.0.1:0"
[service.web]
command = ["sleep", "60"]
ready = {{ delay = 0 }}
listen = ["http"]
workers = {workers}
{more}
"""

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
only_root = pytest.mark.skipif(
    os.geteuid() != 0 or sys.executable.startswith("/root"),
    reason="only root can be several users, who have to run our Python",
)


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory of nobody, who may not look into those of pytest."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-check-") as found:
        os.chown(found, NOBODY, NOBODY)
        yield Path(found)


def of_release(place: Path, more: str = "") -> str:
    (place / "release").mkdir()
    (place / "shop.env").write_text("A=1\n")
    own = f'cwd = "{place}/release"\nenv_file = "{place}/shop.env"\n{more}'
    return CONFIG.format(workers=1, more=own)


def check(manager: Manager, *arguments: str) -> dict[str, Any]:
    done = manager.run("check", "-c", str(manager.config), *arguments)
    assert done.code == 0, done.stderr
    found: dict[str, Any] = done.answer
    return found


def test_check_shows_what_the_next_reload_changes_and_nothing_after_it(tmp_path: Path) -> None:
    with Manager(tmp_path, CONFIG.format(workers=1, more="")) as manager:
        assert check(manager)["changes"] == []
        more = 'umask = "022"\n[service.job]\ncommand = ["sleep", "60"]\nlisten = []'
        more += "\nrollout = { probation = 0.2 }"
        manager.config.write_text(CONFIG.format(workers=2, more=more))
        told = check(manager)
        assert told["applies"]
        assert [change["text"] for change in told["changes"]] == [
            "~ service.web.workers 1 → 2: needs no new workers",
            "! service.web.umask default → 022: rolling reload",
            "+ service.job: 1 worker started",
        ]
        assert manager.reload().code == 0
        assert len(manager.workers()) >= 2
        assert check(manager)["changes"] == []


def test_check_tells_of_a_link_that_has_moved_until_a_reload_follows_it(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        assert check(manager)["changes"] == []
        old = release.directory
        release.deploy("2")
        (change,) = check(manager)["changes"]
        assert change["text"] == f"! release.web {old} → {release.directory}: rolling reload"
        assert manager.reload().code == 0
        assert check(manager)["changes"] == []


def test_a_release_that_runs_in_the_environment_of_the_manager_is_a_note_and_in_the_log(
    tmp_path: Path,
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "current").symlink_to("1")
    command = f'cwd = "{tmp_path}/current"\numask = "022"'
    text = CONFIG.format(workers=1, more=command).replace('["sleep", "60"]', '["uvicorn", "a:b"]')
    with Manager(tmp_path, text.replace("delay = 0", "delay = 0.01")) as manager:
        told = f"the release {tmp_path}/1 has no .venv, so it runs with what is installed in "
        assert [note for note in check(manager)["notes"] if told in note]
        assert told in wait_in_log(manager, "release without an environment", "service=web")


def test_a_refused_reload_says_that_what_serves_goes_on_and_exits_as_check_does(
    tmp_path: Path,
) -> None:
    with Manager(tmp_path, CONFIG.format(workers=1, more="")) as manager:
        for wrong in ('["nowhere-to-be-found"]', '["sleep"'):
            text = CONFIG.format(workers=1, more="").replace('["sleep", "60"]', wrong)
            manager.config.write_text(text)
            checked, reloaded = manager.run("check", "-c", str(manager.config)), manager.reload()
            assert (checked.code, reloaded.code) == (2, 2)
            assert "nothing was changed: what serves goes on" in reloaded.stderr
            assert reloaded.stderr.splitlines()[0] == checked.stderr.splitlines()[0]


def test_check_of_another_file_compares_that_file_and_not_the_managers_own(tmp_path: Path) -> None:
    with Manager(tmp_path, CONFIG.format(workers=1, more="")) as manager:
        candidate = tmp_path / "candidate.toml"
        candidate.write_text(CONFIG.format(workers=3, more=""))
        told = check(manager, "-c", str(candidate))
        assert [change["new"] for change in told["changes"]] == ["3"]
        assert not told["applies"]
        assert check(manager)["changes"] == []


@only_root
@pytest.mark.parametrize("file", ["release", "shop.env"])
def test_check_and_doctor_tell_of_what_only_the_manager_may_not_see(file: str, place: Path) -> None:
    with Manager(place, of_release(place), under=AS_NOBODY) as manager:
        assert check(manager)["changes"] == []
        (place / file).chmod(0o700)
        checked, reloaded = manager.run("check", "-c", str(manager.config)), manager.reload()
        assert (reloaded.code, checked.code) == (2, 2)
        assert f"{place}/{file}" in checked.answer["error"]["what"]
        assert checked.answer["error"]["what"] in reloaded.stderr
        assert "the manager that runs cannot use it, as its user" in checked.stderr
        doctor = manager.run("doctor", "-c", str(manager.config))
        (found,) = [one for one in doctor.answer if one["check"] == "config"]
        assert found["what"] == checked.answer["error"]["what"]


@only_root
@pytest.mark.parametrize("file", ["release", "shop.env"])
def test_check_takes_the_word_of_a_manager_that_may_see_more(file: str, place: Path) -> None:
    config = of_release(place, f'[control]\ngroup = "{NOBODY}"')
    os.chown(place, 0, 0)
    place.chmod(0o755)
    with Manager(place, config) as manager:
        (place / file).chmod(0o700)
        checked = manager.run("check", "-c", str(manager.config), under=AS_NOBODY)
        assert checked.code == 0, checked.stderr
        (note,) = (one for one in checked.answer["notes"] if f"user {NOBODY} could not run" in one)
        assert f"{place}/{file}" in note
        assert checked.answer["changes"] == []
        manager.config.write_text(config + "[listen]\n")
        assert manager.run("check", "-c", str(manager.config), under=AS_NOBODY).code == 2
