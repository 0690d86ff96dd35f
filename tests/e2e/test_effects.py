"""What `sockmgr check` says of a change is what a reload does: each effect that it can name.

EFFECTS has a row for each sentence of the plan, and names the test that holds it. A row is missing
as soon as the plan has a sentence more.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sockmgr.config.plan import Takes
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, Release, answered, serving, wait_gone
from tests.helpers.load import Load, Target

# Answers with what its process is: one connection at a time, TERM ends it.
TELLS = """
import json, os, resource, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
listeners = [socket.socket(fileno=fd) for fd in range(3, 3 + int(os.environ["LISTEN_FDS"]))]
mask = os.umask(0); os.umask(mask)
told = json.dumps({
    "argv": sys.argv[1:], "cwd": os.getcwd(), "umask": mask, "uid": os.getuid(), "gid": os.getgid(),
    "limit": resource.getrlimit(resource.RLIMIT_CORE)[0], "names": os.environ["LISTEN_FDNAMES"],
    "env": {k: v for k, v in os.environ.items() if k in ("GREETING", "HOME", "LISTEN_PID")},
}).encode()
while True:
    client, _ = listeners[0].accept()
    with client:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(told) + told)
"""


class Case:
    """One manager, whose config is changed: what check says of it, and what is so then."""

    def __init__(self, manager: Manager, release: Release) -> None:
        self.manager, self.release = manager, release

    def change(self, config: str, *said: str) -> None:
        """Reload with this config, of which check says all of this, each in one line."""
        self.manager.config.write_text(config)
        told = self.manager.say("check", "-c", str(self.manager.config)).stdout.splitlines()
        for words in said:
            assert any(words in line for line in told), (words, told)
        done = self.manager.reload()
        assert done.code == 0, done.stderr or done.stdout
        after = self.manager.say("check", "-c", str(self.manager.config))
        assert "nothing would change" in after.stdout + after.stderr, (
            "it was done, so it is no more"
        )


@contextlib.contextmanager
def case(directory: Path, config: Callable[[Release], str]) -> Iterator[Case]:
    """Run this config; whatever is changed, no request to the listener `http` may fail."""
    release = Release(directory)
    with Manager(directory, config(release)) as manager:
        with Load(manager.target(), LIGHT) as load:
            answered(load)
            yield Case(manager, release)
            answered(load, count=3)
        assert not load.result.failed, load.result.failures()
        wait_gone(manager)


def listening(release: Release, *listeners: str, names: tuple[str, ...] = ("http",)) -> str:
    """Return a config whose one service has these listeners."""
    quoted = ", ".join(f'"{name}"' for name in names)
    return "\n".join(["[listen]", *listeners, release.service(f"listen = [{quoted}]")])


HTTP = 'http = "tcp://127.0.0.1:0"'


# --- Listeners -----------------------------------------------------------------------------------


def test_a_listener_is_opened_before_any_worker_starts_and_closed_when_nothing_waits(
    tmp_path: Path,
) -> None:
    path = tmp_path / "more.sock"
    more = f'more = "unix://{path}"'
    with case(tmp_path, lambda release: listening(release, HTTP)) as now:
        both = listening(now.release, HTTP, more, names=("http", "more"))
        now.change(both, f"+ listen.more unix://{path}: {Takes.OPENED}")
        lines = now.manager.log.splitlines()
        first = next(n for n, line in enumerate(lines) if "listening name=more" in line)
        assert first < next(
            n for n, line in enumerate(lines) if "worker started worker=web@2" in line
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\n")  # not whole: it waits for the rest
            now.change(listening(now.release, HTTP), f"- listen.more unix://{path}: {Takes.CLOSED}")
            client.sendall(b"\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        wait_for(lambda: not path.exists(), "the listener to be closed")


def test_an_address_that_changes_is_opened_first_and_the_old_one_serves_who_came(
    tmp_path: Path,
) -> None:
    old, new = f"unix://{tmp_path}/old", f"unix://{tmp_path}/new"
    names = ("http", "more")
    with (
        case(
            tmp_path, lambda release: listening(release, HTTP, f'more = "{old}"', names=names)
        ) as now,
        Load(Target.at_path(f"{tmp_path}/old"), LIGHT, floor=0) as before,
    ):
        answered(before)
        before.stop()
        assert not before.result.failed
        said = f"! listen.more {old} → {new}: {Takes.OPENED_FIRST}, {Takes.CLOSED_AFTER}"
        now.change(listening(now.release, HTTP, f'more = "{new}"', names=names), said)
        with Load(Target.at_path(f"{tmp_path}/new"), LIGHT) as after:
            answered(after)
        assert not after.result.failed
        wait_for(lambda: not (tmp_path / "old").exists(), "the old address to be given up")


def test_a_listener_that_only_gets_another_name_stays_open(tmp_path: Path) -> None:
    with case(tmp_path, lambda release: listening(release, HTTP)) as now:
        was = now.manager.target()
        renamed = listening(now.release, HTTP.replace("http", "www", 1), names=("www",))
        now.change(renamed, f"~ listen.www http → www: {Takes.RENAMED}")
        assert now.manager.target("www") == was


def test_what_is_set_on_the_open_socket_is_set_and_nobody_notices(tmp_path: Path) -> None:
    path = tmp_path / "s"
    root = os.geteuid() == 0
    user, group = pwd.getpwuid(1 if root else os.getuid()), grp.getgrgid(1 if root else os.getgid())

    def config(release: Release, keys: str = "", backlog: int = 99) -> str:
        table = f'more = {{ address = "unix://{path}", {keys} backlog = 7 }}'
        plain = f'http = {{ address = "tcp://127.0.0.1:0", backlog = {backlog} }}'
        return listening(release, plain, table, names=("http", "more"))

    with case(tmp_path, config) as now:
        node = path.stat().st_ino
        keys = f'mode = "0666", user = "{user.pw_name}", group = "{group.gr_name}",'
        now.change(
            config(now.release, keys, backlog=33),
            *(f"~ listen.more.{key} default → " for key in ("mode", "user", "group")),
            f"~ listen.http.backlog 99 → 33: {Takes.SET}",
        )
        found = path.stat()
        assert found.st_ino == node, "it is the socket that was there"
        assert stat.S_IMODE(found.st_mode) == 0o666
        assert (found.st_uid, found.st_gid) == (user.pw_uid, group.gr_gid)
        assert now.manager.status()["listeners"]["http"]["backlog"] == 33


def test_what_a_reload_that_failed_had_set_is_undone(tmp_path: Path) -> None:
    def config(release: Release, backlog: int) -> str:
        return listening(
            release, f'http = {{ address = "tcp://127.0.0.1:0", backlog = {backlog} }}'
        )

    with case(tmp_path, lambda release: config(release, 99)) as now:
        now.release.deploy("2", "exits")
        now.manager.config.write_text(config(now.release, 33))
        assert now.manager.reload().code == 1
        assert now.manager.status()["listeners"]["http"]["backlog"] == 99
        told = now.manager.say("check", "-c", str(now.manager.config)).stdout
        assert f"~ listen.http.backlog 99 → 33: {Takes.SET}" in told


def test_the_mode_of_a_path_that_somebody_else_bound_stays_as_it_is_and_check_says_so(
    tmp_path: Path,
) -> None:
    release, path = Release(tmp_path), tmp_path / "s"

    def config(mode: str) -> str:
        return listening(release, f'http = {{ address = "unix://{path}", {mode} backlog = 9 }}')

    # As systemd does it: the socket comes under the name of the listener, sd_listen_fds(3).
    passes = (sys.executable, "-c", PASSES, str(path))
    with Manager(tmp_path, config(""), under=passes) as manager:
        with Load(manager.target(), LIGHT) as load:
            answered(load)
            before = path.stat().st_mode
            manager.config.write_text(config('mode = "0600",'))
            told = manager.say("check", "-c", str(manager.config)).stdout
            assert f"~ listen.http.mode default → 0600: {Takes.NOT_OURS}" in told
            assert manager.reload().code == 0
            assert path.stat().st_mode == before
        assert not load.result.failed


PASSES = """
import os, socket, sys
path, *command = sys.argv[1:]
sock = socket.socket(socket.AF_UNIX)
sock.bind(path); os.chmod(path, 0o666); sock.listen(50)
if sock.fileno() != 3:
    os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "LISTEN_PID": str(os.getpid())}
os.execvp(command[0], command)
"""


# --- Services ------------------------------------------------------------------------------------


def test_a_service_is_started_and_one_that_is_removed_serves_who_waits_before_it_ends(
    tmp_path: Path,
) -> None:
    def config(release: Release, *, shop: bool) -> str:
        lines = ["[listen]", HTTP, *(['shop = "tcp://127.0.0.2:0"'] if shop else [])]
        lines += [release.service('listen = ["http"]')]
        lines += [release.service('listen = ["shop"]', name="shop")] if shop else []
        return "\n".join(lines)

    with case(tmp_path, lambda release: config(release, shop=False)) as now:
        now.change(config(now.release, shop=True), f"+ service.shop: 1 worker {Takes.STARTED}")
        assert len(serving(now.manager, "shop")[1]) == 1
        target = now.manager.target("shop")
        with socket.socket(target.family) as hand, socket.socket(target.family) as queue:
            for client in (hand, queue):
                client.settimeout(30)
                client.connect(target.address)
            hand.sendall(b"GET / HTTP/1.1\r\n")  # its worker has this one in hand
            queue.sendall(b"GET / HTTP/1.1\r\n\r\n")  # and this one waits behind it
            ending = threading.Timer(0.5, lambda: hand.sendall(b"\r\n"))
            ending.start()
            now.change(config(now.release, shop=False), f"- service.shop: {Takes.STOPPED}")
            assert hand.recv(100).startswith(b"HTTP/1.1 200")
            assert queue.recv(100).startswith(b"HTTP/1.1 200")
            ending.join()
        assert list(now.manager.status()["services"]) == ["web"]


def test_while_a_removed_service_drains_another_takes_its_listener_and_it_cannot_come_back(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)

    def config(name: str) -> str:
        lines = ["[listen]", HTTP, *(['shop = "tcp://127.0.0.2:0"'] if name else [])]
        lines += [release.service('listen = ["http"]')]
        lines += [release.service('listen = ["shop"]', name=name)] if name else []
        return "\n".join(lines)

    with Manager(tmp_path, config("shop")) as manager:
        target = manager.target("shop")
        with socket.socket(target.family) as hand:
            hand.settimeout(30)
            hand.connect(target.address)
            hand.sendall(b"GET / HTTP/1.1\r\n")  # its worker has this one in hand
            manager.config.write_text(config(""))
            going = [threading.Thread(target=manager.reload) for _ in range(2)]
            going[0].start()
            wait_for(lambda: manager.workers("shop")[0]["state"] == "draining", "the removal")
            manager.config.write_text(config("shop"))
            told = manager.say("reload")
            assert (told.code, "shop was removed by a reload" in told.stderr) == (1, True)
            manager.config.write_text(config("store"))
            going[1].start()  # its verdict waits for the end of the other one
            wait_for(lambda: manager.events("committed", service="store"), "the next one")
            with Load(target, LIGHT) as load:
                answered(load)
            assert not load.result.failed, load.result.failures()
            hand.sendall(b"\r\n")
            assert hand.recv(100).startswith(b"HTTP/1.1 200")
        for reload in going:
            reload.join()


def test_the_verdict_on_a_service_that_was_removed_says_how_its_workers_ended(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    (tmp_path / "deaf").mkdir()
    deaf = Release(tmp_path / "deaf", fault="is deaf")
    web = release.service('listen = ["http"]')
    shop = deaf.service('listen = ["shop"]', "drain_timeout = 1", name="shop")
    listeners = ["[listen]", HTTP]
    text = "\n".join([*listeners, 'shop = "tcp://127.0.0.2:0"', web, shop])
    with Manager(tmp_path, text) as manager:
        manager.config.write_text("\n".join([*listeners, web]))
        [gone] = [v for v in manager.reload().answer if v["service"] == "shop"]
        assert (gone["receipt"]["killed"], gone["receipt"]["drained"]) == (1, 0)


# The key in the first config, the key in the second, and whether what a worker tells is the second.
_COMMAND = 'command = ["{python}", "-c", {tells}, "%s"]'
ROWS: dict[str, tuple[str, str, Callable[[dict[str, Any], Path], bool]]] = {
    "command": (_COMMAND % "a", _COMMAND % "b", lambda told, _: told["argv"] == ["b"]),
    "cwd": ('cwd = "{here}"', 'cwd = "{here}/new"', lambda told, at: told["cwd"] == f"{at}/new"),
    "env": ("", 'env = { GREETING = "hi" }', lambda told, _: told["env"].get("GREETING") == "hi"),
    "inherit_env": ("", "inherit_env = false", lambda told, _: "HOME" not in told["env"]),
    "umask": ("", 'umask = "0027"', lambda told, _: told["umask"] == 0o27),
    "limits": ("", "limits = { core = 7 }", lambda told, _: told["limit"] == 7),
    "listen_pid": ("", "listen_pid = false", lambda told, _: "LISTEN_PID" not in told["env"]),
    "user": ("", 'user = "1"', lambda told, _: told["uid"] == 1),
    "group": ("", 'group = "1"', lambda told, _: told["gid"] == 1),
}  # fmt: skip


def test_each_key_that_takes_new_workers_is_what_the_new_workers_have(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    # Another user has to come here and to our Python; pytest makes directories for us alone.
    python = Path(sys.executable)
    above = {*tmp_path.parents, *python.parents, *python.resolve().parents}
    is_open = all(path.stat().st_mode & 0o1 for path in above)
    rows = ROWS
    if os.geteuid() != 0 or not is_open:
        rows = {key: row for key, row in ROWS.items() if key not in ("user", "group")}

    def config(which: int) -> str:
        lines = [row[which] for row in rows.values() if row[which]]
        body = "\n".join(lines).replace("{python}", sys.executable).replace("{here}", str(tmp_path))
        body = body.replace("{tells}", json.dumps(TELLS))
        return f"[listen]\n{HTTP}\n[service.web]\n{body}\n[service.web.rollout]\nprobation = 0.1\n"

    with Manager(tmp_path, config(0)) as manager:
        manager.config.write_text(config(1))
        told = manager.say("check", "-c", str(manager.config)).stdout.splitlines()
        for key in rows:
            [line] = [line for line in told if f"service.web.{key} " in line]
            assert line.strip().startswith("!"), line
            assert line.endswith(Takes.ROLLING)
        done = manager.reload()
        assert done.code == 0, done.stdout
        found = ask(manager)
        for key, (_, _, holds) in rows.items():
            assert holds(found, tmp_path), (key, found)


def ask(manager: Manager) -> dict[str, Any]:
    """Return what the worker that answers tells of itself."""
    target = manager.target()
    with socket.socket(target.family) as client:
        client.settimeout(30)
        client.connect(target.address)
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        data = b""
        while piece := client.recv(65536):
            data += piece
    told: dict[str, Any] = json.loads(data.partition(b"\r\n\r\n")[2])
    return told


def test_what_needs_no_new_workers_is_so_for_the_workers_that_serve_then(tmp_path: Path) -> None:
    with case(tmp_path, lambda release: release.config("workers = 1")) as now:
        keys = ("workers = 3", "drain_timeout = 1", 'max_age = "1h"', 'stop_signal = "TERM"')
        now.change(
            now.release.config(*keys),
            f"~ service.web.workers 1 → 3: {Takes.NO_WORKERS}",
            f"~ service.web.drain_timeout 30 s → 1 s: {Takes.NO_WORKERS}",
        )
        assert len(serving(now.manager)[1]) == 3
        now.release.deploy("2", "is deaf")
        assert now.manager.reload().code == 0
        now.release.deploy("3")
        assert now.manager.reload().code == 0
        wait_for(lambda: "not drained within 1 s" in now.manager.log, "the deaf to be killed")


# --- The rest ------------------------------------------------------------------------------------


def test_what_a_reload_does_not_take_over_is_said_to_be_for_later_or_for_others(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    udp = 'dns = { address = "udp://127.0.0.1:0", backlog = %d }'
    dns = '[service.dns]\ncommand = ["sleep", "60"]\nlisten = ["dns"]\nready = { delay = 0 }\n'
    dns += "rollout = { probation = 0 }\n"

    def config(name: str, backlog: int, more: str = "", stop: str = "") -> str:
        http = f'http = {{ address = "tcp://127.0.0.1:0"{stop} }}'
        web = release.service('listen = ["http"]')
        return "\n".join([f'name = "{name}"', "[listen]", http, udp % backlog, web, dns, more])

    with Manager(tmp_path, config("one", 9)) as manager:
        manager.config.write_text(config("two", 8, '[dev]\nignore = ["*.x"]', ', on_stop = "drop"'))
        told = manager.say("check", "-c", str(manager.config)).stdout
        for line in (
            f"~ name one → two: {Takes.NEXT_START}",
            f"~ dev: {Takes.FOR_DEV}",
            f"~ listen.dns.backlog 9 → 8: {Takes.NO_BACKLOG}",
            f"~ listen.http.on_stop refuse → drop: {Takes.AT_STOP}",
        ):
            assert line in told, (line, told)
        assert manager.reload().code == 0
        assert "manager started" in manager.log
        assert manager.log.count("name=one") == 1
        assert "name=two" not in manager.log
        manager.kill9()
        manager.start()
        manager.wait_serving()


# --- The table -----------------------------------------------------------------------------------

_OPENED = "test_a_listener_is_opened_before_any_worker_starts_and_closed_when_nothing_waits"
_MOVED = "test_an_address_that_changes_is_opened_first_and_the_old_one_serves_who_came"
_SWAP = "test_two_listeners_swap_their_addresses_and_each_client_gets_the_service_that_is_there"
_COMES_AND_GOES = (
    "test_a_service_is_started_and_one_that_is_removed_serves_who_waits_before_it_ends"
)
_LATER = "test_what_a_reload_does_not_take_over_is_said_to_be_for_later_or_for_others"
EFFECTS = {
    Takes.OPENED: _OPENED,
    Takes.CLOSED: _OPENED,
    Takes.OPENED_FIRST: _MOVED,
    Takes.CLOSED_AFTER: _MOVED,
    Takes.TAKEN_OVER: _SWAP,
    Takes.GOES_ON: _SWAP,
    Takes.RENAMED: "test_a_listener_that_only_gets_another_name_stays_open",
    Takes.SET: "test_what_is_set_on_the_open_socket_is_set_and_nobody_notices",
    Takes.NOT_OURS: (
        "test_the_mode_of_a_path_that_somebody_else_bound_stays_as_it_is_and_check_says_so"
    ),
    Takes.STARTED: _COMES_AND_GOES,
    Takes.STOPPED: _COMES_AND_GOES,
    Takes.ROLLING: "test_each_key_that_takes_new_workers_is_what_the_new_workers_have",
    Takes.NO_WORKERS: "test_what_needs_no_new_workers_is_so_for_the_workers_that_serve_then",
    Takes.NO_BACKLOG: _LATER,
    Takes.AT_STOP: _LATER,
    Takes.NEXT_START: _LATER,
    Takes.FOR_DEV: _LATER,
}


def test_each_effect_that_the_plan_can_name_has_a_test() -> None:
    assert EFFECTS.keys() == set(Takes)
    there = "".join(each.read_text() for each in Path(__file__).parent.glob("test_*.py"))
    assert all(f"\ndef {name}(" in there for name in EFFECTS.values())
