"""accept = "dispatch" under load: the manager passes each connection to a worker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

from tests.e2e.apps import EXAMPLES, ROOT, App
from tests.e2e.commands import config, versions
from tests.e2e.harness import BIN, Manager, wait_for
from tests.e2e.passing import connections
from tests.helpers.load import Load, Target

LOAD = ("short:rate=120", "slow:conns=2,s=0.3")
PASSED = (str(BIN / "python"), str(ROOT / "tests/e2e/programs/passed.py"))
DISPATCH = 'accept = "dispatch"'


def test_reloads_and_other_numbers_of_workers_lose_nothing(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    with Manager(tmp_path, config(app, PASSED, workers=2, more=DISPATCH)) as manager:
        with Load(manager.target(), LOAD) as load:
            for number in range(2):
                app.deploy(f"v{number}")
                assert manager.reload().code == 0
            for workers in (3, 1):
                assert manager.say("scale", "web", str(workers)).code == 0
        assert not load.result.failed, load.result.failures()
        assert manager.status()["services"]["web"]["accepted"] > len(load.result.rows) / 2
        assert {"v0", "v1"} <= versions(load.result)


def test_a_reload_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    with Manager(tmp_path, config(app, PASSED, workers=2, more=DISPATCH)) as manager:
        before = connections(manager).keys()
        with Load(manager.target(), LOAD) as load:
            app.deploy_broken()
            assert manager.reload().code == 1
        assert not load.result.failed, load.result.failures()
        assert connections(manager).keys() == before


def test_a_worker_that_is_killed_loses_no_more_than_it_had_in_hand(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    with Manager(tmp_path, config(app, PASSED, workers=2, more=DISPATCH)) as manager:
        with Load(manager.target(), ["short:rate=150"]) as load:
            for _ in range(3):
                victim = next(iter(connections(manager)))
                os.kill(victim, signal.SIGKILL)
                wait_for(
                    lambda v=victim: len(found := connections(manager)) == 2 and v not in found,
                    "its successor",
                )
        # At this rate one is in hand at a time, or two.
        assert len(load.result.failed) <= 2 * 3, load.result.failures()


def test_the_next_manager_goes_on_with_the_same_workers(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    with Manager(tmp_path, config(app, PASSED, workers=2, more=DISPATCH)) as manager:
        before = connections(manager).keys()
        with Load(manager.target(), LOAD) as load:
            for _ in range(2):
                manager.kill9()
                manager.start()
                manager.wait_serving()
                assert connections(manager).keys() == before
            assert manager.say("upgrade").code == 0
            assert connections(manager).keys() == before
        # A manager that is killed may have one in hand.
        assert len(load.result.failed) <= 2, load.result.failures()
        assert manager.reload().code == 0
        assert not before & connections(manager).keys()


def test_when_all_are_full_clients_wait_for_one_that_is_free(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    text = config(app, PASSED, workers=2, more=f"{DISPATCH}\nmax_connections = 2")
    with Manager(tmp_path, text) as manager:
        with Load(manager.target(), ["slow:conns=12,s=0.1"]) as load:
            wait_for(lambda: set(connections(manager).values()) == {2}, "both are full")
            wait_for(lambda: len(load.result.rows) > 60, "sixty answers")
            most = max(connections(manager).values())
        assert most <= 2
        assert not load.result.failed, load.result.failures()
        wait_for(lambda: set(connections(manager).values()) == {0}, "all are closed")


def test_a_unix_socket_is_served_by_dispatch_and_each_worker_has_its_share(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    path = tmp_path / "web.sock"
    text = config(app, PASSED, workers=3, more=DISPATCH).replace(
        '"tcp://127.0.0.1:0"', f'"unix://{path}"'
    )
    with Manager(tmp_path, text) as manager:
        with Load(Target.at_path(str(path)), ["short:rate=120"]) as load:
            wait_for(lambda: len(load.result.rows) >= 60, "sixty answers")
        assert not load.result.failed, load.result.failures()
        shares = Counter(row.pid for row in load.result.rows)
        assert max(shares.values()) - min(shares.values()) <= 1
        with Load(Target.at_path(str(path)), LOAD) as load:
            assert manager.reload().code == 0
        assert not load.result.failed, load.result.failures()


def test_a_service_changes_its_way_of_accepting_under_load(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    plain = config(app, (str(BIN / "python"), "-S", "accept_loop.py"))
    passed = config(app, PASSED, more=DISPATCH)
    with Manager(tmp_path, plain) as manager:
        with Load(manager.target(), ["short:rate=120"]) as load:
            for text in (passed, plain, passed):
                manager.config.write_text(text)
                assert manager.reload().code == 0
        assert not load.result.failed, load.result.failures()


def test_a_service_that_a_reload_adds_beside_another_is_passed_connections_as_well(
    tmp_path: Path,
) -> None:
    app = App("plain", tmp_path)
    one = config(app, PASSED, more=DISPATCH)
    two = one.replace("[service.web", "[service.api").partition("[service.api]")[2]
    two = f'listen = ["api"]\nafter = ["web"]{two}'
    with Manager(tmp_path, one) as manager:
        with Load(manager.target(), ["short:rate=60"]) as load:
            text = one.replace("[service.web]", '[service.web]\nlisten = ["http"]')
            text = text.replace("[listen]", '[listen]\napi = "tcp://127.0.0.2:0"')
            manager.config.write_text(f"{text}\n[service.api]\n{two}")
            assert manager.reload().code == 0
            with Load(manager.target("api"), ["short:rate=60"]) as other:
                pass  # it goes on until there are answers
        for each in (load, other):
            assert not each.result.failed, each.result.failures()


def test_a_worker_in_c_is_served_by_the_manager(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "dispatch-c", tmp_path / "dispatch-c")
    app = App("plain", tmp_path)
    program = tmp_path / "worker"
    source = tmp_path / "dispatch-c" / "worker.c"
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    with Manager(tmp_path, config(app, (str(program),), workers=1, more=DISPATCH)) as manager:
        with Load(manager.target(), ["short:rate=120"]) as load:
            assert manager.reload().code == 0
            assert manager.reload().code == 0
        assert not load.result.failed, load.result.failures()
