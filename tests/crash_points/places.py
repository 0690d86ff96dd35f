"""Where a manager is killed at a crash point and followed by another: beside us, or under systemd.

A place has two services that stay: `http`, an application under load, and `side`, on which is tried
what goes wrong. Deeds add others. Processes are named by the pids that the manager sees.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sockmgr.config.spec import Accept
from sockmgr.manager.crash_points import VARIABLE
from tests.deaths import outside
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.helpers.load import Load, Target
from tests.systemd.machine import PYTHON, Machine
from tests.systemd.mishaps import guard_of
from tests.systemd.site import SERVICE, WORKER, Site

MODES = ("short:rate=60", "slow:conns=2,s=0.3", "kat:conns=2,think=0.02")
PORTS = {"http": 8000, "side": 8001, "extra": 8002}
DROP_IN = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=100ms\n"
MAIN = "import sys\nsys.path.insert(0, 'asgi')\nfrom app import app\n"
WORKER_HERE = Path(__file__).parents[1] / "e2e" / "programs" / "worker.py"


class Place(ABC):
    """One manager after the other, with the same services. Use it in a `with` block."""

    python: str
    worker: str
    ports: dict[str, int]

    def __init__(self, accept: Accept, top: Path) -> None:
        """Lay out the applications below `top`, a directory."""
        self.accept, self.top = accept, top
        self.marks = top / "marks"
        self.marks.mkdir()
        self.marks.chmod(0o777)
        self.release = 1
        self._waiting: list[threading.Thread] = []
        self._codes: list[int] = []
        self.said = ""  # what the last verb had on its standard error
        for name in PORTS:
            (self.directory(name) / "asgi").parent.mkdir(parents=True, exist_ok=True)
            (self.directory(name) / "version").write_text("1")
            (self.directory(name) / "main.py").write_text(MAIN)
        self._apps = {name: App("asgi", self.directory(name)) for name in ("http", "extra")}

    def directory(self, service: str) -> Path:
        return self.top / "services" / service

    def text(
        self, *, http: str = "", rollout: str = "", side: str = "", extra: str = "", more: str = ""
    ) -> str:
        """Return the config; the arguments are lines of the services, `more` follows them."""
        listens = [f'{n} = "tcp://127.0.0.1:{p}"' for n, p in self.ports.items() if n != "extra"]
        if extra:
            listens.append(f'extra = "tcp://127.0.0.1:{self.ports["extra"]}"')
            extra = f'[service.extra]\ncwd = "{self.directory("extra")}"\n{extra}'
        ready = 'ready = { http = "/" }' if self.accept is Accept.DISPATCH else ""
        command = json.dumps([self.python, "-S", "-E", self.worker])
        return "\n".join([
            'name = "shop"', "[listen]", *listens,
            "[service.http]", 'app = "main:app"', "http = { access_log = false }", "workers = 2",
            'listen = ["http"]', f'cwd = "{self.directory("http")}"', f'accept = "{self.accept}"',
            ready, http, "[service.http.rollout]", 'probation = "0.2s"', "max_draining = 20",
            rollout, "[service.http.hooks]", 'ready = ["true"]',
            "[service.side]", f"command = {command}", f'cwd = "{self.directory("side")}"',
            'listen = ["side"]', side or "drain_timeout = '0.5s'",
            extra, more, "",
        ])  # fmt: skip

    def deploy(self, *, broken: bool = False) -> None:
        """Have another version of `http` in place."""
        self.release += 1
        if broken:
            self._apps["http"].deploy_broken()
        else:
            self._apps["http"].deploy(str(self.release))

    def spoil(self, fault: str) -> None:
        """Have workers of `side` that start from now on do this."""
        (self.directory("side") / "fault").write_text(fault)

    def begin(self, *verb: str) -> None:
        """Have a verb run beside us; it may lose its manager."""
        thread = threading.Thread(target=lambda: self._codes.append(self.do(*verb)))
        thread.start()
        self._waiting.append(thread)

    def attend(self, *verb: str) -> None:
        """Have a verb run until it has ended, or its manager has, whose successor it waits for."""
        self.begin(*verb)
        verb_runs = self._waiting[-1].is_alive
        wait_for(lambda: not verb_runs() or any(self.marks.iterdir()), "the end of a verb")

    def is_dead(self, point: str) -> bool:
        """Tell whether a manager has been ended at the point."""
        return (self.marks / f"crashed-at-{point}").exists()

    def forget(self) -> list[int]:
        """Wait for what was begun; return the exit codes of the verbs."""
        for thread in self._waiting:
            thread.join()
        self._waiting.clear()
        codes, self._codes = self._codes, []
        return codes

    def workers(self, service: str) -> dict[int, str]:
        """Return the state of each worker by its pid."""
        found = self.status()["services"][service]["workers"]
        return {worker["pid"]: worker["state"] for worker in found}

    def is_at_rest(self, *, anew: bool = False) -> bool:
        """Tell whether `http` serves and is in no rollout; if not just `anew`, so do all others."""
        try:
            services = self.status()["services"]
        except (OSError, AssertionError, json.JSONDecodeError):
            return False
        looked = [services["http"]] if anew else services.values()
        return all(
            each["state"] == "serving"
            and each["rollout"] is None
            and {worker["state"] for worker in each["workers"]} == {"ready"}
            for each in looked
        ) and (anew or services.keys() == {"http", "side"})

    @abstractmethod
    def __enter__(self) -> Place: ...
    @abstractmethod
    def __exit__(self, *_: object) -> None: ...
    @abstractmethod
    def arm(self, at: str) -> None:
        """Have another manager follow, which ends at a point; do not wait for it."""

    @abstractmethod
    def succeed(self) -> None:
        """Have the next manager go on; do not wait for it."""

    @abstractmethod
    def do(self, *verb: str) -> int:
        """Run a verb of the command line; return its exit code."""

    @abstractmethod
    def write(self, config: str) -> None: ...
    @abstractmethod
    def status(self) -> dict[str, Any]: ...
    @abstractmethod
    def signal(self, pid: int, number: int) -> None: ...
    @abstractmethod
    def outside(self, pid: int) -> int:
        """What we call the process that the manager calls so."""

    @property
    @abstractmethod
    def manager(self) -> int:
        """The pid of the manager, as we call it."""

    @property
    @abstractmethod
    def watcher(self) -> int:
        """The pid of what looks after the workers without a manager, as we call it."""

    @abstractmethod
    def load(self, *modes: str) -> Load:
        """Return load on `http`, of MODES if none are given."""

    @abstractmethod
    def inside(self, act: Callable[[], None]) -> None:
        """Do something where clients are."""

    def ask(self, service: str, path: str = "/") -> None:
        """Have a client wait for an answer of a service, in a thread."""
        act = functools.partial(_get, self.ports[service], path)
        thread = threading.Thread(target=self.inside, args=(act,), name="client")
        thread.start()
        self._waiting.append(thread)

    @property
    @abstractmethod
    def log(self) -> str: ...


class Alone(Place):
    """Without systemd."""

    python, worker = sys.executable, str(WORKER_HERE)

    def __init__(self, accept: Accept, top: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(accept, top)
        self.ports = {name: _free_port() for name in PORTS}
        self._manager = Manager(top, self.text(), env=env)

    def __enter__(self) -> Alone:
        self._manager.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()
        self.forget()

    def arm(self, at: str) -> None:
        self._manager.kill9()
        self._manager.start(env={VARIABLE: f"{self.marks}/{at}"})

    def succeed(self) -> None:
        self._manager.kill9()  # it has ended: this reaps it
        self._manager.start()

    def do(self, *verb: str) -> int:
        done = self._manager.say(*verb)
        self.said = done.stderr
        return done.code

    def write(self, config: str) -> None:
        self._manager.config.write_text(config)

    def status(self) -> dict[str, Any]:
        return self._manager.status()

    def signal(self, pid: int, number: int) -> None:
        os.kill(pid, number)

    def outside(self, pid: int) -> int:
        return pid

    @property
    def manager(self) -> int:
        return self._manager.pid

    @property
    def watcher(self) -> int:
        return self._manager.keeper

    def load(self, *modes: str) -> Load:
        return Load(Target.at_url(f"http://127.0.0.1:{self.ports['http']}"), modes or MODES)

    def inside(self, act: Callable[[], None]) -> None:
        act()

    @property
    def log(self) -> str:
        return self._manager.log


class UnderSystemd(Place):
    """The unit of a site on a machine of its own."""

    python, worker, ports = PYTHON, WORKER, PORTS

    def __init__(self, accept: Accept) -> None:
        self.machine = Machine()
        super().__init__(accept, self.machine.shared)

    def __enter__(self) -> UnderSystemd:
        self.machine.__enter__()
        listen = {name: f"tcp://127.0.0.1:{PORTS[name]}" for name in ("http", "side")}
        self.site = Site(self.machine, listen)
        self.site.write(self.text())
        self.site.install()
        self.site.drop_in(DROP_IN)
        self.site.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.__exit__(None, None, None)
        self.forget()

    def arm(self, at: str) -> None:
        keys = f"ReadWritePaths={self.marks}\nEnvironment={VARIABLE}={self.marks}/{at}\n"
        self.site.drop_in(DROP_IN + keys)
        before = self.site.main_pid
        self.machine.systemctl("restart", "--no-block", SERVICE)
        wait_for(lambda: self.site.main_pid != before, "the manager to leave")

    def succeed(self) -> None:
        """Do nothing: systemd starts the next one, and the mark keeps that alive."""

    def do(self, *verb: str) -> int:
        if verb[0] == "systemctl":
            return self.machine.run(*verb, check=False).returncode
        argv = ("sockmgr", verb[0], "-c", self.site.config, *verb[1:])
        done = self.machine.run(*argv, check=False)
        self.said = done.stderr
        return done.returncode

    def write(self, config: str) -> None:
        self.site.write(config)

    def status(self) -> dict[str, Any]:
        return self.site.status()

    def signal(self, pid: int, number: int) -> None:
        self.machine.run("kill", f"-{signal.Signals(number).name[3:]}", str(pid))

    def outside(self, pid: int) -> int:
        return outside(self.machine, pid)

    @property
    def manager(self) -> int:
        return self.outside(self.site.main_pid)

    @property
    def watcher(self) -> int:
        return self.outside(guard_of(self.site))

    def load(self, *modes: str) -> Load:
        return self.site.load(*(modes or MODES))

    def inside(self, act: Callable[[], None]) -> None:
        self.site.inside(act)

    @property
    def log(self) -> str:
        return self.site.journal


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _get(port: int, path: str) -> None:
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.settimeout(20)
        sock.connect(("127.0.0.1", port))
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        while sock.recv(65536):
            pass
