"""`sockmgr check` against a real manager: what it says would change is what a reload changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
