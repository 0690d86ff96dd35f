"""The promises, each on a real manager with real workers (P4 to P7 also in tests/fleet)."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from sockmgr.api.records import EventKind
from sockmgr.manager.logs.events import EVENTS_MAX
from sockmgr.manager.logs.ring import LINES_MAX
from tests.e2e.apps import App
from tests.e2e.commands import PLAIN, UVICORN, config, versions
from tests.e2e.harness import Manager, varlink, wait_for
from tests.helpers.load import Load
from tests.helpers.proc import descriptors, field, sleeps, zombies

LOAD = ("short:rate=150",)
MAX_DRAINING = 4  # the default of max_draining


def sockets(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    return {link for link in found if link.startswith("socket:")}


def test_p1_the_manager_holds_a_listening_socket_of_each_listener_over_reloads(
    tmp_path: Path,
) -> None:
    app = App("plain", tmp_path)
    with Manager(tmp_path, config(app, PLAIN)) as manager:

        def at_rest() -> set[str]:
            # A reload that comes while a generation drains takes a queue more, which is kept.
            wait_for(lambda: len(manager.workers()) == 2, "the old generation to leave")
            manager.wait_unasked()
            return sockets(manager.pid)

        assert manager.reload().code == 0  # the second queue is made now
        before = at_rest()
        with Load(manager.target(), ["short:rate=60"]) as load:
            for _ in range(5):
                # The queue of the generation before the last is made anew for the next one.
                held = at_rest()
                assert manager.reload().code == 0
                assert held & sockets(manager.pid)
        assert not load.result.failed, load.result.failures()
        assert len(at_rest()) == len(before)


def crashes(manager: Manager) -> int:
    """Return how many workers ended before they were ready."""
    return len(manager.events(EventKind.WORKER_ENDED, was="starting"))


def test_p2_connections_wait_and_are_answered_when_every_worker_crashes(tmp_path: Path) -> None:
    """Done when 4: a crash loop; nobody is refused; the fix is reloaded and answers the waiting."""
    app = App("plain", tmp_path)
    with Manager(tmp_path, config(app, PLAIN)) as manager:
        app.deploy_broken()
        with Load(manager.target(), ["short:rate=30,timeout=20"]) as load:
            for worker in manager.workers():
                os.kill(worker["pid"], signal.SIGKILL)
            killed_at = time.monotonic()
            wait_for(
                lambda: manager.status()["services"]["web"]["state"] == "down", "the crash loop"
            )
            wait_for(lambda: crashes(manager) >= 4, "some more crashes")
            wait_for(lambda: manager.status()["listeners"]["http"]["queue"], "a queue")
            app.deploy("2")
            done = manager.reload()
        assert done.code == 0, done.stdout + done.stderr
        lost = load.result.lost
        # What the two killed workers had in hand, one each, is theirs.
        assert len(lost) <= 2, load.result.failures()
        assert all(row.began <= killed_at for row in lost), load.result.failures()
        assert "2" in versions(load.result)
        assert manager.alive


def test_p2_nothing_is_lost_while_both_generations_are_fed(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    rollout = "surge = 1\nprobation = 0.2"
    with Manager(tmp_path, config(app, PLAIN, workers=3, rollout=rollout)) as manager:
        with Load(manager.target(), LOAD) as load:
            wait_for(lambda: "1" in versions(load.result), "an answer")
            app.deploy("2")
            done = manager.reload()
            wait_for(lambda: "2" in versions(load.result), "an answer of the new generation")
        assert done.code == 0, done.stdout + done.stderr
        assert not load.result.lost, load.result.failures()
        assert re.search("queues (take turns|chosen at random) listener=http", manager.log)


def test_p2_a_first_deploy_that_crashes_is_mended_by_a_reload(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    app.deploy_broken()
    manager = Manager(tmp_path, config(app, PLAIN))
    try:
        manager.start()
        wait_for(lambda: crashes(manager) >= 3, "some crashes")
        with Load(manager.target(), ["short:rate=30,timeout=20"]) as load:
            wait_for(lambda: manager.status()["listeners"]["http"]["queue"] >= 5, "a queue")
            app.deploy("1")
            assert manager.reload().code == 0
            wait_for(lambda: "1" in versions(load.result), "an answer")
        assert not load.result.lost, load.result.failures()
    finally:
        manager.close()


def test_p3_a_worker_is_ready_only_when_it_accepts_itself(tmp_path: Path) -> None:
    """The old generation answers all the time; the new one only loads: it must not pass."""
    app = App("asgi", tmp_path)
    more = 'env = { IMPORT_SECONDS = "1.0" }'
    with Manager(tmp_path, config(app, UVICORN, more=more)) as manager:
        app.deploy("2")
        with Load(manager.target(), LOAD) as load:
            done = manager.reload()
            wait_for(lambda: "2" in versions(load.result), "the new version")
        assert done.code == 0
        assert done.seconds > 1.0
        assert not load.result.lost, load.result.failures()


def test_p4_a_worker_killed_during_a_rollout_is_replaced_from_the_committed_release(
    tmp_path: Path,
) -> None:
    """Releases as directories: `current` points at the new one while the old one is restarted."""
    first, second = App("plain", tmp_path / "1"), App("plain", tmp_path / "2")
    first.deploy("1")
    second.deploy("2")
    current = tmp_path / "current"
    current.symlink_to(first.directory)
    app = App("plain", tmp_path / "unused")
    app.directory = current
    hang = "import time, os\nVERSION = '2'\ntime.sleep(float(os.environ.get('HANG', '3')))\n"
    (second.directory / "version.py").write_text(hang)
    with Manager(tmp_path, config(app, PLAIN, more='ready_timeout = "20s"')) as manager:
        old = {worker["pid"] for worker in manager.workers()}
        current.unlink()
        current.symlink_to(second.directory)
        os.kill(manager.pid, signal.SIGHUP)
        wait_for(lambda: manager.status()["services"]["web"]["rollout"], "the rollout")
        os.kill(min(old), signal.SIGKILL)

        def successor() -> set[int]:
            workers = manager.workers()
            ready = {w["pid"] for w in workers if w["generation"] == 1 and w["state"] == "ready"}
            return ready - old

        pid = wait_for(successor, "a successor of generation 1").pop()
        assert Path(f"/proc/{pid}/cwd").readlink() == first.directory
        wait_for(lambda: manager.status()["services"]["web"]["generation"] == 2, "the commit")


def test_p7_a_broken_deploy_changes_nothing_and_says_why(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN)) as manager:
        before = {worker["pid"] for worker in manager.workers()}
        app.deploy_broken()
        with Load(manager.target(), LOAD) as load:
            done = manager.reload()
        assert done.code == 1
        (verdict,) = done.answer
        assert verdict["verdict"] == "aborted"
        assert verdict["kept"] == 1
        assert "exited with status 1" in verdict["reason"]
        assert any("a_module_that_nobody_installed" in line for line in verdict["output"])
        assert not load.result.lost, load.result.failures()
        assert {worker["pid"] for worker in manager.workers()} == before


def test_p7_what_waits_for_a_generation_that_died_in_probation_is_answered(tmp_path: Path) -> None:
    """It looks ready, then dies at its first connection, which nobody of it has accepted."""
    app = App("plain", tmp_path)
    with Manager(tmp_path, config(app, PLAIN, rollout="probation = 2")) as manager:
        trap = "import os, select\nselect.select([3], [], [])\nos._exit(1)\n"
        (app.directory / "version.py").write_text(trap)
        with Load(manager.target(), LOAD) as load:
            done = manager.reload()
            app.deploy("1")
            wait_for(lambda: "the queue it was started for is empty" in manager.log, "the rescue")
            wait_for(lambda: len(load.result.rows) > 100, "some load")
        assert done.code == 1
        assert "after it was ready" in done.answer[0]["reason"]
        assert not load.result.lost, load.result.failures()


@pytest.mark.timeout(600)  # it works all the time, and may have a fifth of a processor
def test_p9_nothing_grows_over_two_hundred_reloads(tmp_path: Path) -> None:
    """Done when 5: after more than 200 reloads the manager is what it was after the tenth."""
    app, probe = App("plain", tmp_path), Probe(tmp_path)
    text = config(app, PLAIN, workers=1, rollout="probation = 0")
    with Manager(tmp_path, text, env=probe.env) as manager:

        def reload(times: int) -> None:
            for _ in range(times):
                answer = varlink(manager.control, "Reload", {"services": []})
                assert answer["verdicts"][0]["verdict"] == "committed", answer
                # One that comes while another drains takes a queue more, which is kept.
                wait_for(lambda: len(manager.workers()) == 1, "the old generation to leave")

        def at_rest() -> tuple[list[str], int, int]:
            return descriptors(manager.pid), zombies(manager.pid), field(manager.pid, "Threads")

        reload(10)
        before = at_rest()
        while manager.log.count("\n") <= LINES_MAX:  # from then on as many are remembered as ever
            reload(1)
        blocks, memory = probe.blocks(manager.pid), field(manager.pid, "VmRSS")
        reload(100)
        found = at_rest()
        assert found[1:] == before[1:]
        # As many queues more as generations may drain at once, however many reloads there were.
        more = Counter(found[0]) - Counter(before[0])
        assert more.total() <= MAX_DRAINING, more
        # A worker that is not forgotten is dozens of blocks; tables that are resized are hundreds.
        # A number above 256 is an object: from generation 257 on each event has one of its own.
        assert probe.blocks(manager.pid) - blocks < 500 + EVENTS_MAX
        # Python's table of interned strings doubles once: 545 kB.
        assert field(manager.pid, "VmRSS") - memory < 1024
        assert before[1] == 0
        assert manager.status()["services"]["web"]["generation"] > 200


class Probe:
    """Makes a manager tell how many blocks of memory its objects have; it is not told of it.

    The size of a process says little: it depends on what else lies in a page.
    """

    def __init__(self, tmp_path: Path) -> None:
        self._told = tmp_path / "blocks"
        site = tmp_path / "probe"
        site.mkdir()
        (site / "sitecustomize.py").write_text(
            "import gc, pathlib, signal, sys\n"
            "def tell(*_):\n"
            "    gc.collect()\n"
            f"    pathlib.Path({str(self._told)!r}).write_text(str(sys.getallocatedblocks()))\n"
            "signal.signal(signal.SIGRTMIN, tell)\n"
        )
        self.env = {"PYTHONPATH": str(site)}

    def blocks(self, pid: int) -> int:
        """Ask the process with this pid."""
        self._told.write_text("")
        os.kill(pid, signal.SIGRTMIN)
        return int(wait_for(self._told.read_text, "the number of blocks"))


def test_p10_a_worker_gets_our_environment_and_nothing_meant_for_the_manager(
    tmp_path: Path,
) -> None:
    app = App("plain", tmp_path)
    outer = {"KEPT": "yes", "NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "FDSTORE": "9",
             "JOURNAL_STREAM": "8:1", "LISTEN_FDNAMES": "mine", "LISTEN_PIDFDID": "7"}  # fmt: skip
    with Manager(tmp_path, config(app, PLAIN, more='env = { ADDED = "1" }'), env=outer) as manager:
        pid = manager.workers()[0]["pid"]
        words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        env = dict(word.split("=", 1) for word in words if word)
    assert (env["KEPT"], env["ADDED"]) == ("yes", "1")
    assert (env["LISTEN_FDS"], env["LISTEN_PID"]) == ("1", str(pid))
    assert env["LISTEN_FDNAMES"] == "http"
    foreign = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "FDSTORE", "JOURNAL_STREAM", "LISTEN_PIDFDID"}
    assert not foreign & env.keys()


def test_p11_the_manager_sleeps_when_nothing_happens(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    with Manager(tmp_path, config(app, PLAIN)) as manager:
        target = manager.target()
        wait_for(lambda: sleeps(manager.pid), "the manager to come to rest")
        before = field(manager.pid, "voluntary_ctxt_switches")
        with Load(target, LOAD) as load:
            wait_for(lambda: len(load.result.rows) > 300, "some hundred answers")
        assert field(manager.pid, "voluntary_ctxt_switches") - before <= 2


@pytest.mark.parametrize("command", [UVICORN, PLAIN], ids=["uvicorn", "accept loop"])
def test_a_killed_worker_is_replaced_and_only_its_own_requests_are_lost(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Done when 4."""
    app = App("asgi" if command is UVICORN else "plain", tmp_path)
    with Manager(tmp_path, config(app, command, workers=3)) as manager:
        with Load(manager.target(), ["short:rate=100", "slow:conns=1"]) as load:
            victim = manager.workers()[0]["pid"]
            os.kill(victim, signal.SIGKILL)

            def replaced() -> bool:
                workers = manager.workers()
                ready = [w for w in workers if w["state"] == "ready" and w["pid"] != victim]
                return len(ready) == 3

            wait_for(replaced, "the successor")
        # What is lost was in the hands of the victim: accepted, so reset, never refused.
        lost = load.result.lost
        assert len(lost) <= 2, load.result.failures()
        assert all(row.outcome in {"reset0", "reset_mid", "empty"} for row in lost)
