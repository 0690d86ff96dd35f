"""`preload = true`: workers that are copies of a template, and what becomes of it under load."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.apps import ROOT, App
from tests.e2e.harness import Manager, wait_for
from tests.e2e.preloading import LOAD, config
from tests.e2e.programs.release import answered, wait_in_log
from tests.helpers.load import Load
from tests.helpers.proc import descriptors, zombies


def pids(manager: Manager) -> set[int]:
    return {worker["pid"] for worker in manager.workers() if worker["state"] == "ready"}


def template(manager: Manager) -> int:
    """Return the pid of the template that was started last."""
    return int(re.findall(r"template started template=\S+ pid=(\d+)", manager.log)[-1])


def parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def ended(pid: int) -> bool:
    """Tell whether a process has ended; somebody else may have to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def gone(manager: Manager, *, generations: int) -> None:
    """Wait for the end of all that so many generations had. Asks nothing: that costs a socket."""
    wait_for(lambda: manager.log.count("template ended") == generations, "the templates' end")
    wait_for(lambda: manager.log.count("worker ended") == 2 * generations, "the workers' end")


def test_reloads_bring_new_code_lose_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app)) as manager:
        with Load(manager.target(), LOAD) as load:
            for number in range(2, 5):
                app.deploy(str(number))
                done = manager.reload()
                assert done.code == 0, done.stdout
                answered(load, str(number))
                gone(manager, generations=number - 1)
                if number == 2:  # the second queue is there
                    before = descriptors(manager.pid)
            result = load.stop()
        assert not result.failed, result.failures()
        # The connection of the last client may have been counted then.
        wait_for(
            lambda: not Counter(descriptors(manager.pid)) - Counter(before),
            "no more descriptors than before",
        )
        assert {parent(pid) for pid in pids(manager)} == {manager.pid}
        assert zombies(manager.pid) == 0
        assert manager.stop() == 0
        assert manager.leftovers() == []


def test_a_template_that_is_killed_is_missed_by_nobody_until_a_worker_is_needed(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app)) as manager:
        with Load(manager.target(), LOAD) as load:
            before = pids(manager)
            first = template(manager)
            os.kill(first, signal.SIGKILL)
            wait_in_log(manager, "template ended", f"pid={first}")
            answered(load, count=20)
            assert pids(manager) == before
            assert manager.run("scale", "web", "3").code == 0
            assert template(manager) != first
            assert before < pids(manager)
            result = load.stop()
        assert not result.failed, result.failures()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(pids(manager) - {victim}) == 3, "its successor")
        assert f"pid={victim} was=ready how='was killed by signal 9 (KILL)'" in manager.log


def test_a_manager_that_is_killed_loses_its_template_and_no_worker(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app)) as manager:
        before, old = pids(manager), template(manager)
        with Load(manager.target(), LOAD) as load:
            manager.kill9()
            manager.start()
            manager.wait_serving()
            assert pids(manager) == before
            assert ended(old)
            app.deploy("2")
            assert manager.reload().code == 0
            answered(load, "2")
            result = load.stop()
        assert not result.failed, result.failures()


def test_a_rollout_whose_template_imports_when_the_manager_is_killed_is_finished_by_the_next(
    tmp_path: Path,
) -> None:
    app, gate = App("asgi", tmp_path), tmp_path / "gate"
    with Manager(tmp_path, config(app)) as manager:
        before, first = pids(manager), template(manager)
        app.deploy_code(
            "import os, pathlib, time\n"
            f"pathlib.Path({str(tmp_path / 'imports')!r}).touch()\n"
            f"while not os.path.exists({str(gate)!r}):\n"
            "    time.sleep(0.01)\n"
            'VERSION = "2"'
        )
        os.kill(manager.pid, signal.SIGHUP)
        wait_for(lambda: template(manager) != first, "the next template")
        imports = template(manager)
        wait_for((tmp_path / "imports").exists, "the import")
        manager.status()  # whoever is answered knows that what was before is kept
        manager.kill9()
        wait_for(lambda: imports not in manager.leftovers(), "its end")
        manager.start()
        manager.wait_serving()
        with Load(manager.target(), LOAD[1:]) as load:
            answered(load, "1")  # who serves is fed, not who will
            gate.touch()
            wait_for(lambda: len(pids(manager) - before) == 2, "the rollout to end")
            answered(load, "2")
        assert not load.result.failed, load.result.failures()
        assert "aborted" not in manager.log


def test_an_upgrade_of_the_manager_keeps_the_workers_and_the_next_has_a_new_template(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app)) as manager:
        before, old = pids(manager), template(manager)
        assert manager.run("upgrade").code == 0
        manager.wait_serving()
        wait_for(lambda: ended(old), "the end of the template")
        wait_for(lambda: zombies(manager.pid) == 0, "it to be reaped")
        assert pids(manager) == before
        assert manager.run("scale", "web", "3").code == 0
        assert before < pids(manager)


# --- What fails ----------------------------------------------------------------------------------


def test_code_that_is_broken_or_starts_threads_aborts_at_once_and_says_why(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app)) as manager, Load(manager.target(), LOAD) as load:
        before = pids(manager)
        app.deploy_broken()
        done = manager.say("reload")
        assert done.code == 1
        assert "exited with status 3 before it was ready" in done.stdout
        assert "a_module_that_nobody_installed" in done.stdout
        code = "import threading\nthreading.Timer(1000, print).start()\nVERSION = '3'\n"
        (app.directory / "version.py").write_text(code)
        done = manager.say("reload")
        assert done.code == 1
        assert "its import started threads, which no worker would have: Thread-1" in done.stdout
        assert pids(manager) == before
        assert not load.stop().failed


def test_an_import_that_leaves_a_connection_open_aborts_the_reload_by_name(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as database,
        Manager(tmp_path, config(app)) as manager,
        Load(manager.target(), LOAD) as load,
    ):
        before = pids(manager)
        where = "{}:{}".format(*database.getsockname())
        code = f"""
import socket
POOL = [socket.create_connection(("127.0.0.1", {database.getsockname()[1]}))]
VERSION = "2"
"""
        (app.directory / "version.py").write_text(code)
        done = manager.say("reload")
        assert done.code == 1
        assert f"its import left 1 connection open to {where} (fd " in done.stdout
        assert pids(manager) == before
        assert not load.stop().failed


def test_an_import_that_hangs_aborts_at_the_ready_timeout_and_is_ended(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, more='ready_timeout = "3s"')) as manager:
        before = pids(manager)
        code = "import signal\nprint('hangs here', flush=True)\nsignal.pause()\n"
        (app.directory / "version.py").write_text(code)
        done = manager.say("reload")
        assert done.code == 1
        assert "hangs here" in done.stdout
        assert "its template has not imported the application yet" in done.stdout
        wait_for(lambda: set(manager.leftovers()) & {template(manager)} == set(), "its end")
        assert pids(manager) == before


def test_a_stop_does_not_wait_for_an_import(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    (app.directory / "version.py").write_text("import signal\nsignal.pause()\n")
    manager = Manager(tmp_path, config(app))
    try:
        manager.start()
        wait_for(lambda: "template started" in manager.log, "the template")
        assert manager.stop() == 0
        assert manager.leftovers() == []
    finally:
        manager.close()


# --- Where less is allowed -----------------------------------------------------------------------


def test_where_clone3_is_refused_one_line_says_so_and_all_else_is_the_same(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    (app.directory / "contained.py").write_text(f"""
import sys
sys.path.append({str(ROOT)!r})
from tests.helpers.refuse import refuse
refuse("clone3")
from app import app
""")
    with Manager(tmp_path, config(app, target="contained:app")) as manager:
        assert manager.log.count("clone3(2): Function not implemented") == 1
        assert {parent(pid) for pid in pids(manager)} == {manager.pid}
        victim = min(pids(manager))
        os.kill(victim, signal.SIGTERM)
        wait_in_log(manager, "worker ended", f"pid={victim}", "how=clean")
        with Load(manager.target(), LOAD) as load:
            app.deploy("2")
            assert manager.reload().code == 0
            answered(load, "2")
            assert not load.stop().failed
        wait_for(lambda: len(manager.workers()) == 2, "the old workers to be gone")
        assert zombies(manager.pid) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the group")
def test_template_and_workers_have_the_identity_of_the_service(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    more = 'group = "65534"\numask = "027"\nlimits = { core = 0 }'
    with Manager(tmp_path, config(app, more=more)) as manager:
        for pid in (template(manager), *pids(manager)):
            assert Path(f"/proc/{pid}").stat().st_gid == 65534
            assert "\nUmask:\t0027\n" in Path(f"/proc/{pid}/status").read_text()
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
        assert manager.reload().code == 0


# --- What it is for ------------------------------------------------------------------------------


def test_workers_share_what_the_import_made(tmp_path: Path) -> None:
    used = {}
    for preload in ("true", "false"):
        directory = tmp_path / preload
        directory.mkdir()
        app = App("asgi", directory)
        (app.directory / "large.py").write_text(
            "from app import app\nheld = [[str(n)] for n in range(200_000)]\n"  # some 25 MB
        )
        text = config(app, target="large:app", workers=4, preload=preload)
        with Manager(directory, text) as manager:
            everybody = pids(manager)
            if preload == "true":
                everybody |= {template(manager)}
            used[preload] = sum(map(pss, everybody))
    assert used["true"] < 0.6 * used["false"]


def pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError("no Pss in smaps_rollup")
