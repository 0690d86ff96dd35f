"""`sockmgr check` against a real manager: what it says would change is what a reload changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.harness import Manager

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


def test_check_of_another_file_compares_that_file_and_not_the_managers_own(tmp_path: Path) -> None:
    with Manager(tmp_path, CONFIG.format(workers=1, more="")) as manager:
        candidate = tmp_path / "candidate.toml"
        candidate.write_text(CONFIG.format(workers=3, more=""))
        told = check(manager, "-c", str(candidate))
        assert [change["new"] for change in told["changes"]] == ["3"]
        assert not told["applies"]
        assert check(manager)["changes"] == []
