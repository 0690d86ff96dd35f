"""Reloads that change the config: listeners and services come and go, and nobody is refused."""

from __future__ import annotations

import os
import re
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sockmgr.config.spec import Accept
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import (
    LIGHT,
    Ask,
    Release,
    answered,
    serving,
    unharmed,
    wait_gone,
    wait_in_log,
)
from tests.helpers.load import Load, Target

LOCAL = "tcp://127.0.0.1:0"


def config(*services: str, **listeners: str) -> str:
    """Return a config of these listeners and services."""
    lines = [f'{name} = "{address}"' for name, address in listeners.items()]
    return "\n".join(["[listen]", *lines, *services])


def test_auto_is_a_worker_for_each_processor_that_the_manager_may_use(tmp_path: Path) -> None:
    release, first = Release(tmp_path), str(min(os.sched_getaffinity(0)))
    text = config(release.service('workers = "auto"'), http=LOCAL)
    with Manager(tmp_path, text, under=("taskset", "--cpu-list", first)) as manager:
        assert len(manager.workers()) == 1
        manager.config.write_text(text.replace('"auto"', "2"))
        told = manager.say("check", "-c", str(manager.config)).stdout
        assert "workers auto → 2" in told
        assert manager.reload().code == 0
        assert manager.status()["services"]["web"]["wanted"] == 2


def accepts(target: Target) -> bool:
    with socket.socket(target.family) as client:
        return client.connect_ex(target.address) == 0


def reload(manager: Manager, text: str, *, code: int = 0) -> list[dict[str, Any]]:
    """Reload with this config; return the verdicts."""
    manager.config.write_text(text)
    done = manager.reload()
    assert done.code == code, done.stderr or done.stdout
    verdicts: list[dict[str, Any]] = done.answer
    return verdicts


def test_a_new_listener_whose_port_is_taken_changes_nothing(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with (
        Manager(tmp_path, release.config()) as manager,
        closing(socket.create_server(("127.0.0.1", 0))) as other,
        unharmed(manager),
    ):
        port, path = other.getsockname()[1], tmp_path / "new.sock"
        manager.config.write_text(
            config(
                release.service('listen = ["http", "new", "more"]'),
                http=LOCAL, new=f"unix://{path}", more=f"tcp://127.0.0.1:{port}",
            )
        )  # fmt: skip
        done = manager.say("reload")
        assert done.code == 1
        assert f"cannot listen on tcp://127.0.0.1:{port}: address already in use" in done.stderr
        assert "or change listen.more" in done.stderr
        assert not path.exists()
        assert list(manager.status()["listeners"]) == ["http"]


def test_an_added_listener_serves_and_a_removed_one_is_closed(tmp_path: Path) -> None:
    release = Release(tmp_path)
    path = tmp_path / "admin.sock"
    with Manager(tmp_path, release.config()) as manager:
        with Load(manager.target(), LIGHT) as load:
            both = release.service('listen = ["http", "admin"]')
            release.deploy("2")
            reload(manager, config(both, http=LOCAL, admin=f"unix://{path}"))
            admin = manager.target("admin")
            with Load(admin, LIGHT) as more:
                answered(more, "2")
            assert not more.result.failed
            release.deploy("3")
            reload(manager, release.config())
            answered(load, "3")
            wait_for(lambda: not path.exists(), "the removed listener to be closed", timeout=10)
            assert list(manager.status()["listeners"]) == ["http"]
        assert not load.result.failed


def test_a_changed_backlog_or_mode_is_set_on_the_open_socket_as_check_says(tmp_path: Path) -> None:
    release = Release(tmp_path)
    path = tmp_path / "s"

    def listening(keys: str) -> str:
        there = release.service('listen = ["http", "s"]')
        return config(there, http=LOCAL).replace(
            "[service", f'[listen.s]\naddress = "unix://{path}"\n{keys}\n[service', 1
        )

    with Manager(tmp_path, listening('mode = "0660"\nbacklog = 77')) as manager:
        before = path.stat()
        assert before.st_mode & 0o777 == 0o660
        manager.config.write_text(listening('mode = "0600"\nbacklog = 9'))
        told = manager.say("check", "-c", str(manager.config)).stdout
        assert "~ listen.s.backlog 77 → 9: set on the open socket" in told
        assert "~ listen.s.mode 0660 → 0600: set on the open socket" in told
        reload(manager, manager.config.read_text())
        after = path.stat()
        assert after.st_mode & 0o777 == 0o600
        assert after.st_ino == before.st_ino
        assert manager.status()["listeners"]["s"]["backlog"] == 9
        assert "~ listen.s" not in manager.say("check", "-c", str(manager.config)).stdout


@pytest.mark.parametrize("accept", [Accept.SHARED, Accept.PER_WORKER])
def test_who_comes_to_an_added_listener_before_any_worker_is_ready_is_answered(
    accept: Accept, tmp_path: Path
) -> None:
    release = Release(tmp_path, fault="says ready")
    keys = (f'accept = "{accept}"', "workers = 2", 'ready = "notify"')
    with Manager(tmp_path, release.config(*keys)) as manager:
        gate = release.hold("2")
        both = release.service('listen = ["http", "more"]', *keys)
        manager.config.write_text(config(both, http=LOCAL, more="tcp://127.0.0.2:0"))
        ask = Ask(manager)
        wait_for(lambda: len(manager.workers()) == 4, "the new workers")
        [port] = re.findall(r"listening name=more address=tcp://127.0.0.2:(\d+)", manager.log)
        with socket.create_connection(("127.0.0.2", int(port)), 10) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            gate.open()
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert ask.verdict()["verdict"] == "committed"


def test_a_renamed_listener_stays_open(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        target = manager.target()
        with Load(target, LIGHT) as load:
            release.deploy("2")
            reload(manager, config(release.service(), web=LOCAL))
            answered(load, "2")
        assert not load.result.failed
        assert manager.target("web") == target
        assert list(manager.status()["listeners"]) == ["web"]


def test_a_listener_that_moves_serves_at_the_new_address_only(tmp_path: Path) -> None:
    release = Release(tmp_path)
    old, new = tmp_path / "old.sock", tmp_path / "new.sock"
    with Manager(tmp_path, release.config(address=f"unix://{old}")) as manager:
        release.deploy("2")
        reload(manager, release.config(address=f"unix://{new}"))
        with Load(Target.at_path(str(new)), LIGHT) as load:
            answered(load, "2", count=3)
        assert not load.result.failed
        wait_for(lambda: not old.exists(), "the old address to be given up", timeout=10)


def test_another_number_of_workers_is_a_generation_with_that_number(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config("workers = 1")) as manager:
        with Load(manager.target(), LIGHT) as load:
            for number in (3, 2):
                reload(manager, release.config(f"workers = {number}"))
                assert len(serving(manager)[1]) == number
                answered(load, count=3)
        assert not load.result.failed
        wait_gone(manager)


def test_a_service_is_added_and_removed_beside_one_that_serves(tmp_path: Path) -> None:
    release = Release(tmp_path)
    web = release.service('listen = ["http"]')
    shop = release.service('listen = ["shop"]', name="shop")
    with Manager(tmp_path, config(web, http=LOCAL)) as manager:
        with Load(manager.target(), LIGHT) as load:
            verdicts = reload(manager, config(web, shop, http=LOCAL, shop="tcp://127.0.0.2:0"))
            assert [v["verdict"] for v in verdicts] == ["committed", "committed"]
            target = manager.target("shop")
            with Load(target, LIGHT) as more:
                answered(more, count=3)
            assert not more.result.failed
            verdicts = reload(manager, config(web, http=LOCAL))
            assert {v["service"]: v["verdict"] for v in verdicts} == {
                "web": "committed", "shop": "committed",
            }  # fmt: skip
            [gone] = [v for v in verdicts if v["service"] == "shop"]
            assert gone["reason"] == "removed from the config; it has stopped"
            assert (gone["receipt"]["drained"], gone["kept"]) == (1, 0)
            assert "worker ended worker=shop@1.1" in manager.log
            wait_for(lambda: list(manager.status()["services"]) == ["web"], "shop to be gone")
            wait_for(lambda: not accepts(target), "its port to be free")
            answered(load, count=3)
        assert not load.result.failed
        wait_gone(manager)


@pytest.mark.parametrize("fault", ["exits", "die"])
def test_an_added_service_that_is_broken_leaves_nothing_and_the_others_commit(
    fault: str, tmp_path: Path
) -> None:
    release = Release(tmp_path)
    (tmp_path / "broken").mkdir()
    broken = Release(tmp_path / "broken", fault=fault)
    web = release.service('listen = ["http"]')
    path = tmp_path / "shop.sock"
    shop = broken.service('listen = ["shop"]', name="shop", rollout=("probation = 2",))
    with Manager(tmp_path, config(web, http=LOCAL)) as manager:
        # The clients of the broken service let it die in probation; they are refused, of course.
        clients = Load(Target.at_path(str(path)), LIGHT, floor=0)
        with Load(manager.target(), LIGHT) as load, clients:
            release.deploy("2")
            verdicts = reload(manager, config(web, shop, http=LOCAL, shop=f"unix://{path}"), code=1)
            found = {v["service"]: v for v in verdicts}
            assert found["web"]["verdict"] == "committed"
            assert (found["shop"]["verdict"], found["shop"]["kept"]) == ("aborted", 0)
            answered(load, "2")
            wait_for(lambda: list(manager.status()["services"]) == ["web"], "shop to be gone")
            assert list(manager.status()["listeners"]) == ["http"]
            wait_for(lambda: not path.exists(), "its socket to be gone", timeout=10)
            wait_gone(manager)
            # The config that holds is that without the broken service.
            wait_in_log(manager, "aborted", "service=shop")
            release.deploy("3")
            reload(manager, config(web, http=LOCAL))
            answered(load, "3")
        assert not load.result.failed
