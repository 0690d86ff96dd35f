"""A service that has no listeners: nothing shows that it works, and a reload is careful with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for

CONSUMER = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
{before}
pathlib.Path("at-work").touch()
signal.pause()
"""
# What only ends after it has counted as ready by the guess of a second.
LATE = "import time; time.sleep(1.5); "


def config(folder: Path, more: str = "") -> str:
    return f"""\
[service.jobs]
command = ["{sys.executable}", "consumer.py"]
cwd = "{folder}"
listen = []
env = {{ PYTHONPATH = "{Path(__file__).parents[2]}" }}
{more}
"""


def deploy(folder: Path, before: str = "") -> None:
    (folder / "at-work").unlink(missing_ok=True)
    (folder / "consumer.py").write_text(CONSUMER.format(before=before))


@pytest.mark.parametrize("how", ["import nothing_that_is_there", "sys.exit(0)"])
def test_a_broken_deploy_of_a_queue_worker_is_aborted_and_the_old_one_works_on(
    tmp_path: Path, how: str
) -> None:
    deploy(tmp_path)
    with Manager(tmp_path, config(tmp_path)) as manager:
        (before,) = manager.workers("jobs")
        deploy(tmp_path, LATE + how)
        done = manager.reload()
        assert done.code == 1, done.stdout
        assert "count as ready; one that ends within 10 s takes it back" in done.stderr
        assert "connections" not in done.stdout + done.stderr
        (after,) = manager.workers("jobs")
        assert (after["pid"], after["state"]) == (before["pid"], "ready")


def test_a_queue_worker_that_says_so_itself_is_not_waited_for_any_longer(tmp_path: Path) -> None:
    say = "import time; time.sleep(1.2); from sockmgr.worker import notify; notify.ready()"
    deploy(tmp_path, say)
    with Manager(tmp_path, config(tmp_path, 'ready = "notify"')) as manager:
        wait_for(lambda: (tmp_path / "at-work").exists() or None, "the consumer")
        deploy(tmp_path, say)
        done = manager.reload()
        (verdict,) = done.answer
        assert (done.code, verdict["verdict"]) == (0, "committed")
        assert 1.2 < verdict["seconds"] < 10
        deploy(tmp_path, LATE + "import nothing_that_is_there")
        assert manager.reload().code == 1
