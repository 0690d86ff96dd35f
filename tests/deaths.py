"""What is lost when a worker, a template, a manager, its keeper or its dispatcher is killed.

Each victim is frozen first, so that one can look which clients' connections it has in its hands:
those it takes with it. What else fails was lost though somebody could have answered it. While it is
frozen more connections come to its queue or its channel, and of these none may fail.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sockmgr.torture.load.result import Row
from tests.e2e.apps import App
from tests.e2e.commands import UVICORN
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import answered
from tests.helpers.load import Load
from tests.systemd.machine import PYTHON, Machine
from tests.systemd.site import SERVICE, Site

MODES = ("short:rate=200", "slow:conns=2,s=0.3")
KEPT = "kat:conns=4,think=0.02"
# For a machine with other tests on it: what waits for a manager must not pile up at the judge.
LIGHT = ("short:rate=60", "slow:conns=2,s=0.3", KEPT)
KILLS = 3
FROZEN = 10  # requests that begin while a victim is frozen
HEAD = (
    "| `accept` | workers | killed | requests | failed | of these in its hands | longest wait |\n"
    + "|---" * 7
    + "|"
)
CELLS = (
    ("shared", "uvicorn"), ("shared", "app"), ("per-worker", "uvicorn"), ("per-worker", "app"),
    ("dispatch", "app"),
)  # fmt: skip
_LISTENS = "0A"  # in /proc/net/tcp: proc_pid_net(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """When it was, and the ports of the clients whose connections the victim had."""

    at: float
    ports: frozenset[int]

    def took(self, row: Row) -> bool:
        """Tell whether it had this connection. One that is kept may be idle, and used later."""
        return row.port in self.ports and (row.began <= self.at or not row.fresh)


def kill(pid: int, load: Load) -> Death:
    """Freeze a process, look what it has in its hands, let more requests come, and kill it."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: _is_frozen(pid), "it to be frozen")
    ports, before = connections(pid), len(load.result.rows)
    wait_for(lambda: len(load.result.rows) >= before + FROZEN, "requests meanwhile")
    with contextlib.suppress(ProcessLookupError):  # the manager kills a frozen dispatcher itself
        os.kill(pid, signal.SIGKILL)
    return Death(at=time.monotonic(), ports=ports)


def connections(pid: int) -> frozenset[int]:
    """Return the ports of the clients whose connections over IPv4 a process has open."""
    links = (str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir())
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return frozenset(
        int(fields[2].partition(":")[2], 16)
        for fields in map(str.split, lines)
        if fields[9] in inodes and fields[3] != _LISTENS
    )


def _is_frozen(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(") ")[2][0] == "T" for task in tasks)


# --- Where managers run --------------------------------------------------------------------------


class Place(Protocol):
    """A manager with two workers, and what is done to it."""

    def load(self, *modes: str) -> Load: ...

    def workers(self) -> dict[int, str]:
        """The state of each worker by its pid, as the manager calls it."""

    def dispatcher(self) -> int:
        """The pid of the dispatcher, as the manager calls it."""

    def outside(self, pid: int) -> int:
        """What we call the process that the manager calls so."""

    def reload(self) -> None:
        """Ask for it, and do not wait."""

    def succeed(self, load: Load) -> Death:
        """Kill the manager; return when the next one serves."""


class Alone:
    """Without systemd."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager

    def load(self, *modes: str) -> Load:
        return Load(self.manager.target(), modes)

    def workers(self) -> dict[int, str]:
        return {w["pid"]: w["state"] for w in self.manager.workers()}

    def dispatcher(self) -> int:
        return dispatcher_in(self.manager.status())

    def outside(self, pid: int) -> int:
        return pid

    def reload(self) -> None:
        os.kill(self.manager.pid, signal.SIGHUP)

    def succeed(self, load: Load) -> Death:
        death = kill(self.manager.pid, load)
        self._begin_anew()
        return death

    def succeed_without_keeper(self, load: Load) -> Death:
        before = made(self)
        death = kill(self.manager.pid, load)
        os.kill(self.keepers[-1], signal.SIGKILL)
        self._begin_anew()
        wait_for(lambda: not before & made(self), "other workers", timeout=60)
        return death

    @property
    def keepers(self) -> list[int]:
        """The pids of all that there were, the last one lives."""
        return self._pids("keeper started")

    def kill_template(self, load: Load) -> Death:
        pid = self._pids("template started")[-1]
        death = kill(pid, load)
        wait_for(lambda: f"pid={pid} how=" in self.manager.log, "its end")
        return death

    def kill_next_template(self, load: Load) -> Death:
        """Reload, and kill the template when it has imported and is about to make workers."""
        ready = len(self._pids("template ready"))
        self.reload()
        made = wait_for(lambda: self._pids("template ready")[ready:], "the next template")
        return kill(made[0], load)

    def _begin_anew(self) -> None:
        self.manager.kill9()
        self.manager.start()
        self.manager.wait_serving()

    def _pids(self, message: str) -> list[int]:
        return [int(pid) for pid in re.findall(rf"{message}.* pid=(\d+)", self.manager.log)]


class UnderSystemd:
    """The unit of a site."""

    def __init__(self, site: Site) -> None:
        self.site, self.machine = site, site.machine

    def load(self, *modes: str) -> Load:
        return self.site.load(*modes)

    def workers(self) -> dict[int, str]:
        return self.site.workers()

    def dispatcher(self) -> int:
        return dispatcher_in(self.site.status())

    def outside(self, pid: int) -> int:
        return outside(self.machine, pid)

    def reload(self) -> None:
        self.machine.run("kill", "-HUP", str(self.site.main_pid))

    def succeed(self, load: Load) -> Death:
        old = self.site.main_pid
        death = kill(self.outside(old), load)
        wait_for(lambda: self.site.main_pid not in (0, old), "another manager")
        wait_for(lambda: self.machine.property(SERVICE, "ActiveState") == "active", "READY=1")
        return death


def dispatcher_in(status: dict[str, Any]) -> int:
    """Return the pid of the dispatcher; 0 if it is missing."""
    found: int = status["manager"]["dispatcher"]
    return found


def outside(machine: Machine, pid: int) -> int:
    """Return what we call the process that is `pid` in the machine; pid_namespaces(7)."""
    namespace = Path(f"/proc/{machine.pid}/ns/pid").readlink()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            names = re.search(r"^NSpid:.*\t(\d+)$", (entry / "status").read_text(), re.MULTILINE)
            if names and names[1] == str(pid) and (entry / "ns/pid").readlink() == namespace:
                return int(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    raise ProcessLookupError(f"there is no process {pid} in the machine")


# --- Who is killed -------------------------------------------------------------------------------


def made(place: Place) -> set[int]:
    """Return the pids of all workers but those that their template has not made yet."""
    return place.workers().keys() - {0}


def ready(place: Place) -> set[int]:
    return {pid for pid, state in place.workers().items() if state == "ready"}


def worker(place: Place, load: Load) -> Death:
    """Kill one; return when its successor is ready."""
    before = ready(place)
    death = kill(place.outside(min(before)), load)
    wait_for(lambda: len(ready(place) - {min(before)}) == len(before), "its successor")
    return death


def dispatcher(place: Place, load: Load) -> Death:
    """Kill it; return when there is another."""
    before = place.dispatcher()
    death = kill(place.outside(before), load)
    wait_for(lambda: place.dispatcher() not in (0, before), "another dispatcher")
    return death


def in_a_reload(place: Place, strike: Callable[[], Death]) -> Death:
    """Return when `strike`, which happens in a reload, has not kept that from its end."""
    before = made(place)
    death = strike()
    wait_for(lambda: not before & made(place), "the end of the rollout")
    return death


def while_it_boots(place: Place, strike: Callable[[], Death]) -> Death:
    """Reload, and let `strike` happen when there is a new worker."""

    def reload() -> Death:
        before = made(place)
        place.reload()
        wait_for(lambda: made(place) - before, "a new worker")
        return strike()

    return in_a_reload(place, reload)


def manager_in_a_reload(place: Place, load: Load) -> Death:
    return while_it_boots(place, lambda: place.succeed(load))


def dispatcher_in_a_reload(place: Place, load: Load) -> Death:
    return while_it_boots(place, lambda: dispatcher(place, load))


Deeds = list[Callable[[Load], Death]]
Case = tuple[str, bool, Deeds]  # what it is, whether workers are drained by it, and what is done


def workers(place: Place) -> Iterator[Case]:
    yield "worker", False, [lambda load: worker(place, load)] * KILLS


def templates(place: Alone) -> Iterator[Case]:
    # Another template is needed when a worker is.
    deeds: Deeds = [place.kill_template, lambda load: worker(place, load)]
    yield "template, and then a worker", False, deeds * 2
    strike: Deeds = [lambda load: in_a_reload(place, lambda: place.kill_next_template(load))]
    yield "template, in a reload", True, strike * KILLS


def managers(place: Place) -> Iterator[Case]:
    yield "manager", False, [place.succeed] * KILLS
    strike: Deeds = [lambda load: manager_in_a_reload(place, load)]
    yield "manager, in a reload", True, strike * KILLS


def dispatchers(place: Place) -> Iterator[Case]:
    yield "dispatcher", False, [lambda load: dispatcher(place, load)] * KILLS
    strike: Deeds = [lambda load: dispatcher_in_a_reload(place, load)]
    yield "dispatcher, in a reload", True, strike * KILLS


def managers_with_keepers(place: Alone) -> Iterator[Case]:
    yield "manager and keeper", True, [place.succeed_without_keeper] * KILLS


def measure(place: Place, deeds: Deeds, *modes: str) -> str:
    """Do all of it under load; return the last cells of a line of the table."""
    with place.load(*MODES, *modes) as load:
        answered(load, count=20)
        deaths = [deed(load) for deed in deeds]
        answered(load, count=50)
    result = load.result
    had = sum(any(death.took(row) for death in deaths) for row in result.failed)
    longest = result.latencies(result.select(modes=["short"]))["max"]
    if had < len(result.failed):
        print(result.failures())
    return f"{len(result.rows)} | {len(result.failed)} | {had} | {longest * 1000:.0f} ms |"


def lines(accept: str, server: str, place: Place, every: Iterator[Case]) -> Iterator[str]:
    """Yield a line of the table for each case."""
    for what, drains, deeds in every:
        # uvicorn closes idle connections when it drains.
        modes = () if drains and server == "uvicorn" else (KEPT,)
        line = f"| `{accept}` | {server} | {what} | {measure(place, deeds, *modes)}"
        print(line, flush=True)
        yield line


# --- The tables ----------------------------------------------------------------------------------

APP = 'app = "{app}"\npreload = true\nhttp = {{ access_log = false }}'


def config(app: App, server: str, accept: str) -> str:
    """Return a config with a port of its own: who finds no keeper would else get another one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ", ".join(f'"{word}"' for word in UVICORN)
    return f"""
[listen]
http = "tcp://127.0.0.1:{port}"

[service.web]
{f"command = [{words}]" if server == "uvicorn" else APP.format(app="app:app")}
workers = 2
cwd = "{app.directory}"
accept = "{accept}"
rollout = {{ max_draining = 20 }}
"""


def without_systemd() -> Iterator[str]:
    """Yield the lines of all models."""
    for accept, server in CELLS:
        with tempfile.TemporaryDirectory() as directory:
            app = App("asgi", Path(directory))
            with Manager(Path(directory), config(app, server, accept)) as manager:
                place = Alone(manager)
                preloaded = templates(place) if server == "app" else ()
                passed = dispatchers(place) if accept == "dispatch" else ()
                last = (managers_with_keepers(place), passed)
                every = itertools.chain(workers(place), preloaded, managers(place), *last)
                yield from lines(accept, server, place, every)


def site(machine: Machine, server: str, accept: str, address: str = "tcp://127.0.0.1:8000") -> Site:
    """Return a site that serves."""
    command = (PYTHON, "-m", "uvicorn", *UVICORN[1:-1], "main:app") if server == "uvicorn" else ()
    more = f'{"" if command else APP.format(app="main:app")}\naccept = "{accept}"'
    made = Site(machine, {"http": address}, command=command, more=more)
    App("asgi", made.directory("http"))
    main = "import sys\nsys.path.insert(0, 'asgi')\nfrom app import app\n"
    (made.directory("http") / "main.py").write_text(main)
    made.install()
    made.drop_in("[Service]\nRestartSec=100ms\n")
    made.start()
    return made


def under_systemd() -> Iterator[str]:
    """Yield the lines of all models."""
    for accept, server in CELLS:
        with Machine() as machine:
            place = UnderSystemd(site(machine, server, accept))
            passed = dispatchers(place) if accept == "dispatch" else ()
            every = itertools.chain(workers(place), managers(place), passed)
            yield from lines(accept, server, place, every)
