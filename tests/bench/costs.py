"""What the manager itself costs: idle, in memory, per request, at its start and per worker."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sockmgr.torture.load.result import Outcome, percentile
from tests.bench.contender import UVICORN, WORKERS, answers, environment, free_port, toml
from tests.bench.report import Goal, Section, narrate, number, table
from tests.e2e.apps import ROOT, App
from tests.e2e.harness import Manager, end_marked, marked_environment, varlink, wait_for
from tests.helpers.load import Load, Target

IDLE_SECONDS = 20.0
LOAD_SECONDS = 5.0
TRIVIAL_WORKERS = 200
SERVER = (*UVICORN, "--fd", "{http}", "app:app")
MANY = """
[service.many]
command = ["sleep", "1000"]
workers = 1
drain_timeout = 0
ready = { delay = 0 }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A manager with four workers and nothing to do."""

    switches: int  # voluntary, of all its threads, in IDLE_SECONDS
    pss: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawning:
    """A manager that starts TRIVIAL_WORKERS at once. Seconds."""

    cost: float  # processor time of the manager for one worker
    wall: float  # from the request to the last worker ready
    stall: float  # the longest time in which the control socket did not answer


def section() -> Section:
    """Measure all of them."""
    narrate("idle manager …")
    at_rest = idle()
    narrate("requests a second …")
    rows = [
        (what, number(managed), number(by_hand), number(managed / by_hand))
        for what, (managed, by_hand) in (
            ("kept connections", throughput("kat:conns=16,think=0")),
            ("new connections", throughput("slow:path=/,conns=16")),
        )
    ]
    narrate("first answer …")
    managed, bare = first_answer()
    narrate("many workers …")
    many = spawning()
    about = (
        "The same four uvicorn processes, on a socket of the manager and on one opened by hand; "
        "the manager is not on the path of a request."
    )
    head = ("16 clients", "under sockmgr (1/s)", "by hand (1/s)", "ratio")
    goals = (
        Goal(what=f"wake-ups of an idle manager in {IDLE_SECONDS:g} s",
             value=at_rest.switches, limit=2),
        Goal(what="memory of a manager of 4 workers (PSS)",
             value=at_rest.pss / 2**20, limit=30, unit="MB"),
        Goal(what="first answer later than that of the bare command by", value=managed - bare,
             limit=0.35, unit="s", compared=f"{number(managed, 's')} and {number(bare, 's')}"),
        Goal(what="manager's processor time for one worker", value=many.cost * 1000,
             limit=3, unit="ms"),
        Goal(what=f"longest silence while it starts {TRIVIAL_WORKERS} workers",
             value=many.stall * 1000, limit=100, unit="ms",
             compared=f"all started after {number(many.wall, 's')}"),
    )  # fmt: skip
    return Section(title="Requests a second", text=f"{about}\n\n{table(head, rows)}", goals=goals)


@contextmanager
def directory() -> Iterator[Path]:
    """A directory for one measurement."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as name:
        yield Path(name)


@contextmanager
def serving() -> Iterator[Manager]:
    """A manager with four uvicorn workers."""
    with directory() as path:
        app = App("asgi", path)
        with Manager(path, toml(SERVER, app)) as manager:
            yield manager


def idle() -> Idle:
    """Leave a manager alone for IDLE_SECONDS and count how often it wakes up."""
    with serving() as manager:
        time.sleep(5)  # for probation and what else follows a start
        before = _switches(manager.pid)
        time.sleep(IDLE_SECONDS)
        return Idle(switches=_switches(manager.pid) - before, pss=pss(manager.pid))


def _switches(pid: int) -> int:
    """Sum the voluntary context switches of all threads (proc_pid_status(5))."""
    lines = [
        line
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


def pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss in smaps_rollup")


# --- Requests a second --------------------------------------------------------------------------


def throughput(mode: str, rounds: int = 3) -> tuple[float, float]:
    """Return requests a second under sockmgr, and of the same processes started by hand."""
    managed, by_hand = [], []
    for _ in range(rounds):  # in turn, so that both meet the same weather
        with serving() as manager:
            managed.append(_rate(manager.target(), mode))
        with hand_started() as target:
            by_hand.append(_rate(target, mode))
    return percentile(managed, 0.5), percentile(by_hand, 0.5)


def _rate(target: Target, mode: str) -> float:
    with Load(target, [mode], drain=5) as load:
        time.sleep(1)
        from_at = time.monotonic()
        time.sleep(LOAD_SECONDS)
        until_at = time.monotonic()
        result = load.stop()
    done = [
        row for row in result.rows if row.outcome is Outcome.OK and from_at <= row.ended < until_at
    ]
    assert not result.lost, result.failures()
    return len(done) / (until_at - from_at)


@contextmanager
def hand_started() -> Iterator[Target]:
    """Four uvicorn processes on one inherited socket, without any manager."""
    with directory() as path, socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        # As the manager's listeners have it: else answers wait for the client's delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        app = App("asgi", path)
        env = marked_environment(environment(IMPORT_SECONDS="0"))
        argv = [word.replace("{http}", str(listener.fileno())) for word in SERVER]
        workers = [
            subprocess.Popen(argv, cwd=app.directory, env=env, pass_fds=[listener.fileno()])
            for _ in range(WORKERS)
        ]
        target = Target(family=socket.AF_INET, address=listener.getsockname())
        try:
            wait_for(lambda: answers(target), "a worker started by hand")
            time.sleep(2)  # for the other three
            yield target
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait(30)
            end_marked(env)


# --- To the first answer ------------------------------------------------------------------------


def first_answer(rounds: int = 7) -> tuple[float, float]:
    """Return seconds from the start to the first 200: under `sockmgr run`, and bare."""
    managed, bare = [], []
    for _ in range(rounds):
        managed.append(_first_answer(_sockmgr_run))
        bare.append(_first_answer(_bare))
    return percentile(managed, 0.5), percentile(bare, 0.5)


def _sockmgr_run(port: int, path: Path) -> list[str]:
    listen = f"http=tcp://127.0.0.1:{port}"
    return [
        sys.executable, "-m", "sockmgr", "run", "--control", str(path / "c.sock"),
        "--listen", listen, "--cwd", str(path / "asgi"), "--", *SERVER,
    ]  # fmt: skip


def _bare(port: int, path: Path) -> list[str]:
    return [*UVICORN, "--port", str(port), "--app-dir", str(path / "asgi"), "app:app"]


def _first_answer(command: Callable[[int, Path], list[str]]) -> float:
    with directory() as path:
        App("asgi", path)
        port = free_port()
        target = Target.at_url(f"http://127.0.0.1:{port}")
        env = marked_environment(environment(IMPORT_SECONDS="0"))
        began_at = time.monotonic()
        process = subprocess.Popen(
            command(port, path), cwd=ROOT, env=env, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: answers(target), "the first answer")
            return time.monotonic() - began_at
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            end_marked(env)


# --- Many workers -------------------------------------------------------------------------------


def spawning() -> Spawning:
    """Go from one trivial worker to TRIVIAL_WORKERS more, and watch how the manager bears it."""
    with directory() as path, Manager(path, MANY) as manager, Pinger(manager.control) as pinger:
        before, began_at = cpu(manager.pid), time.monotonic()
        varlink(manager.control, "Scale", {"service": "many", "workers": TRIVIAL_WORKERS + 1})

        def all_spawned() -> bool:
            children = Path(f"/proc/{manager.pid}/task/{manager.pid}/children").read_text()
            return len(children.split()) > TRIVIAL_WORKERS

        wait_for(all_spawned, "all the workers", timeout=60)
        wall = time.monotonic() - began_at
        cost = (cpu(manager.pid) - before) / TRIVIAL_WORKERS
        time.sleep(0.5)  # what follows a start may stall, too
    return Spawning(cost=cost, wall=wall, stall=pinger.longest)


def cpu(pid: int) -> float:
    """Return seconds on a processor of all threads so far (schedstat: nanoseconds)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


class Pinger:
    """Asks a manager for its name again and again, and remembers the longest wait.

    From when it can be asked until it ends; `pause` is the time from an answer to the next call.
    """

    def __init__(self, control: Path, pause: float = 0.002) -> None:
        self.longest = 0.0
        self._control, self._pause = control, pause
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="pinger", daemon=True)

    def __enter__(self) -> Pinger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        call = json.dumps({"method": "org.varlink.service.GetInfo", "parameters": {}}).encode()
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(ConnectionError):
            sock.settimeout(60)
            while sock.connect_ex(str(self._control)) and not self._ended.wait(self._pause):
                pass
            while not self._ended.wait(self._pause):
                asked_at = time.monotonic()
                sock.sendall(call + b"\0")
                while not (answer := sock.recv(65536)).endswith(b"\0"):
                    if not answer:
                        return
                self.longest = max(self.longest, time.monotonic() - asked_at)
