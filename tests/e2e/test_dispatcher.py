"""The dispatcher under a real manager, killed and stopped under load, in every other's absence."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import deaths
from tests.deaths import Alone
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.e2e.package import Package
from tests.e2e.passing import connections
from tests.e2e.programs.release import answered
from tests.helpers.load import Load
from tests.helpers.proc import is_alive


@contextmanager
def place(directory: Path, *, code: Path | None = None) -> Iterator[tuple[Alone, Load]]:
    """Two workers of `app =` that are passed connections, under load."""
    app = App("asgi", directory)
    more = {"code": code} if code else {}
    text = deaths.config(app, "app", "dispatch")
    with Manager(directory, text, **more) as manager, Load(manager.target(), deaths.LIGHT) as load:
        answered(load, count=20)
        yield Alone(manager), load
        answered(load, count=50)


def pid_of_dispatcher(manager: Manager) -> int:
    return deaths.dispatcher_in(manager.status())


def another(manager: Manager, before: int) -> int:
    def found() -> int:
        pid = pid_of_dispatcher(manager)
        return pid if pid != before else 0

    return wait_for(found, "another dispatcher")


def kill_dispatcher(at: Alone, load: Load) -> None:
    del load
    before = pid_of_dispatcher(at.manager)
    os.kill(before, signal.SIGKILL)
    another(at.manager, before)


def stop_dispatcher(at: Alone, load: Load) -> None:
    del load
    before = pid_of_dispatcher(at.manager)
    os.kill(before, signal.SIGSTOP)
    another(at.manager, before)


def kill_manager(at: Alone, load: Load) -> None:
    del load
    before = pid_of_dispatcher(at.manager)
    at.manager.kill9()
    at.manager.start()
    at.manager.wait_serving()
    assert pid_of_dispatcher(at.manager) == before


@pytest.mark.parametrize("strike", [kill_dispatcher, stop_dispatcher, kill_manager])
def test_at_rest_and_in_a_reload_a_death_loses_no_more_than_it_has_in_its_hands(
    strike: Callable[[Alone, Load], None], tmp_path: Path
) -> None:
    with place(tmp_path) as (at, load):
        strike(at, load)
        answered(load, count=50)
        before = deaths.made(at)
        at.reload()
        wait_for(lambda: deaths.made(at) - before, "a new worker")
        strike(at, load)
        wait_for(lambda: not before & deaths.made(at), "the end of the rollout", timeout=60)
    # One or two connections at a time come in, so there are seldom any in its hands.
    assert len(load.result.failed) <= 2, load.result.failures()
    assert "Traceback" not in at.manager.log


def test_without_manager_and_keeper_everybody_is_served_and_the_next_manager_goes_on(
    tmp_path: Path,
) -> None:
    with place(tmp_path) as (at, load):
        dispatcher, before = pid_of_dispatcher(at.manager), deaths.made(at)
        at.manager.kill9()
        os.kill(at.keepers[-1], signal.SIGKILL)
        answered(load, count=100)  # though there is neither
        at.manager.start()
        at.manager.wait_serving()
        assert pid_of_dispatcher(at.manager) == dispatcher
        # Nobody reads what they print, so they are replaced.
        wait_for(lambda: not before & deaths.made(at), "other workers", timeout=60)
    assert not load.result.failed, load.result.failures()


def test_an_upgrade_replaces_it_by_the_new_code_and_loses_nothing(tmp_path: Path) -> None:
    package = Package(tmp_path)
    with place(tmp_path, code=tmp_path / "code") as (at, load):
        before, workers = pid_of_dispatcher(at.manager), connections(at.manager).keys()
        package.install("9.1")
        assert at.manager.run("upgrade").code == 0
        assert another(at.manager, before)
        assert connections(at.manager).keys() == workers
        answered(load, count=50)
    assert not load.result.failed, load.result.failures()


def test_a_reload_says_so_if_no_dispatcher_can_be_had_and_clients_are_served_when_it_can(
    tmp_path: Path,
) -> None:
    package = Package(tmp_path)
    file = "programs/dispatcher/server.py"
    good = package.read(file)
    app = App("asgi", tmp_path)
    text = deaths.config(app, "app", "dispatch")
    with Manager(tmp_path, text, code=tmp_path / "code") as manager:
        package.change(file, "raise SystemExit('broken')\n")
        os.kill(pid_of_dispatcher(manager), signal.SIGKILL)
        wait_for(lambda: manager.log.count("dispatcher ended") >= 4, "the fourth end")
        assert pid_of_dispatcher(manager) == 0
        assert "no dispatcher: new connections wait" in manager.say("status").stdout
        [verdict] = manager.reload().answer
        assert "no dispatcher runs" in verdict["reason"]
        package.change(file, good)
        with Load(manager.target(), ["short:rate=20"]) as load:
            another(manager, 0)
            answered(load, count=20)
        assert not load.result.failed, load.result.failures()


def test_it_ends_with_the_last_worker_if_no_manager_comes_back(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, deaths.config(app, "app", "dispatch")) as manager:
        dispatcher = pid_of_dispatcher(manager)
        workers = deaths.made(Alone(manager))
        manager.kill9()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(dispatcher), "the end of the dispatcher")


def test_a_stop_ends_it(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, deaths.config(app, "app", "dispatch")) as manager:
        dispatcher = pid_of_dispatcher(manager)
        assert manager.say("stop").code == 0
        manager.wait()
        assert not is_alive(dispatcher)
