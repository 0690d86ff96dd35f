"""Workers that share a unix socket with those before them are probed by one socket of their own."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from sockmgr.api.records import EventKind
from tests.e2e.harness import BIN, Manager, wait_for
from tests.e2e.programs.release import Ask

# Says by files which process was asked, and how it is.
APP = """
import os, pathlib, time
HERE = pathlib.Path(__file__).parent
STATUS = (HERE / "status").read_text()

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/healthz":
        (HERE / f"asked-{os.getpid()}").touch()
        status = STATUS if STATUS != "later" else "200" if (HERE / "go").exists() else "503"
    else:
        status = "200"
    start_response(f"{status} Status", [("Content-Length", "2")])
    return [b"ok"]
"""
SERVERS = {
    "app": 'app = "probed:wsgi"',
    "preloaded": 'app = "probed:wsgi"\npreload = true',
    "gunicorn": f'command = ["{BIN}/gunicorn", "probed:wsgi"]',
}
each_server = pytest.mark.parametrize("runs", SERVERS.values(), ids=SERVERS)


def config(directory: Path, runs: str) -> str:
    (directory / "probed.py").write_text(APP)
    (directory / "status").write_text("200")
    return f"""
[listen]
http = "unix://{directory}/http.sock"

[service.web]
{runs}
cwd = "{directory}"
workers = 2
ready = {{ http = "/healthz", every = "50ms" }}
ready_timeout = "20s"
"""


def asked(directory: Path) -> set[int]:
    return {int(each.name.partition("-")[2]) for each in directory.glob("asked-*")}


def pids(manager: Manager) -> set[int]:
    return {each["pid"] for each in manager.workers()}


def private_sockets(manager: Manager) -> list[Path]:
    return list(manager.control.parent.glob("probe-*"))


def is_asked(directory: Path, among: set[int]) -> bool:
    """Tell whether each of these, or a process that it has started, was asked."""
    parents = {pid: _parent(pid) for pid in asked(directory)}
    return all(pid in parents or pid in parents.values() for pid in among)


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@each_server
def test_each_worker_at_a_unix_socket_is_asked_before_it_counts(runs: str, tmp_path: Path) -> None:
    with Manager(tmp_path, config(tmp_path, runs)) as manager:
        first = pids(manager)
        assert is_asked(tmp_path, first)
        assert private_sockets(manager) == []
        assert manager.reload().code == 0
        wait_for(lambda: len(pids(manager) - first) == 2, "the new workers")
        assert is_asked(tmp_path, pids(manager) - first)
        assert private_sockets(manager) == []


def test_one_that_answers_otherwise_takes_the_reload_back(tmp_path: Path) -> None:
    with Manager(tmp_path, config(tmp_path, SERVERS["app"])) as manager:
        first = pids(manager)
        (tmp_path / "status").write_text("500")
        manager.config.write_text(manager.config.read_text().replace("20s", "8s"))
        done = manager.say("reload")
        assert done.code == 1
        assert "probe GET /healthz on http answered 500" in done.stdout
        wait_for(lambda: pids(manager) == first, "the new generation to be gone")
        assert private_sockets(manager) == []


@pytest.mark.parametrize("runs", [SERVERS["app"], SERVERS["gunicorn"]], ids=["app", "gunicorn"])
def test_a_manager_that_follows_one_that_was_killed_goes_on_asking(
    runs: str, tmp_path: Path
) -> None:
    with Manager(tmp_path, config(tmp_path, runs)) as manager:
        first, before = pids(manager), asked(tmp_path)
        (tmp_path / "status").write_text("later")
        Ask(manager).hang_up()
        wait_for(lambda: len(asked(tmp_path) - before) == 2, "both to be asked")
        (manager.control.parent / "probe-of-others").touch()
        manager.kill9()
        manager.start()
        (tmp_path / "go").touch()

        def is_over() -> bool:
            with contextlib.suppress(OSError):
                return len(pids(manager)) == 2 and not pids(manager) & first
            return False  # the next manager is not there yet

        wait_for(is_over, "the new generation to serve")
        assert [each.name for each in private_sockets(manager)] == ["probe-of-others"]
        assert len(manager.events(EventKind.WORKER_STARTED)) == 4


def test_nobody_else_can_connect_to_a_private_socket(tmp_path: Path) -> None:
    with Manager(tmp_path, config(tmp_path, SERVERS["app"])) as manager:
        (tmp_path / "status").write_text("later")
        Ask(manager).hang_up()
        path = wait_for(lambda: private_sockets(manager), "one to be asked")[0]
        assert path.stat().st_mode & 0o777 == 0o600
        (tmp_path / "go").touch()


def test_a_server_that_takes_one_listener_is_refused_with_the_reason(tmp_path: Path) -> None:
    runs = f'command = ["{BIN}/uvicorn", "--fd", "{{http}}", "probed:asgi"]'
    text = config(tmp_path, runs)
    manager = Manager(tmp_path, text)
    done = manager.say("check", "-c", str(manager.config))
    assert done.code == 2
    assert "is not known to take another one" in done.stdout + done.stderr
    assert "use app or gunicorn, or use { exec" in done.stderr
