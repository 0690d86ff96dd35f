"""Idle kept connections, and some that hammer, over many reloads: how many each server closes."""

from __future__ import annotations

import math
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.bench.contender import (
    GTHREAD,
    UVICORN,
    Running,
    answers,
    environment,
    free_port,
    started,
)
from tests.bench.report import Goal, Section, narrate, number, table
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.helpers.load import Load, Target

RELOADS = 20
IDLE = 1000
CLIENTS = 16
MODES = (f"kat:conns={CLIENTS},think=0",)
WORKERS = 4
LEAST = 10_000  # answers, or it was no load
SOON = 0.3  # seconds
LONG = 180.0
OWN = "sockmgr, app = (uvicorn {})"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Start = Callable[[App, Path], AbstractContextManager[Running]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What became of requests and of idle connections.

    `gone` is the longest time, in seconds, from the last answer of an old worker to their end.
    """

    name: str
    answers: int
    failed: int
    closed: int
    gone: float


@contextmanager
def _own(app: App, directory: Path) -> Iterator[Running]:
    config = (
        f'[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\napp = "app:app"\n'
        f'workers = {WORKERS}\ncwd = "{app.directory}"\n'
        f'http = {{ access_log = false, keep_alive = "1h" }}\n'
    )
    with Manager(directory, config, env=environment(IMPORT_SECONDS="0")) as manager:

        def reload() -> None:
            done = manager.reload()
            assert done.code == 0, done.stderr

        yield Running(target=manager.target(), pid=manager.pid, reload=reload)


def _tool(*command: str) -> Start:
    @contextmanager
    def start(app: App, _: Path) -> Iterator[Running]:
        port = free_port()
        target = Target.at_url(f"http://127.0.0.1:{port}")
        argv = [word.format(port=port, workers=WORKERS) for word in command]
        with started(argv, app.directory) as process:
            wait_for(lambda: answers(target), "the tool to answer")
            time.sleep(3)  # none of them tells when all workers are up
            yield Running(
                target=target, pid=process.pid, reload=lambda: process.send_signal(signal.SIGHUP)
            )

    return start


SERVED_BY: dict[str, tuple[str, str, Start]] = {
    OWN: ("uvicorn", "asgi", _own),
    "uvicorn {} --workers 4, HUP": ("uvicorn", "asgi", _tool(
        *UVICORN, "--workers", "{workers}", "--timeout-keep-alive", "3600",
        "--timeout-worker-healthcheck", "60", "--port", "{port}",
        "app:app")),
    "Gunicorn {} gthread -w 4, HUP": ("gunicorn", "wsgi", _tool(
        *GTHREAD, "--keep-alive", "3600", "--worker-connections", "2000", "-w", "{workers}",
        "-b", "127.0.0.1:{port}", "app:app")),
}  # fmt: skip


class Idle:
    """Connections that have had one answer, and ask for no other."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._socks = [self._connect() for _ in range(IDLE)]

    def _connect(self) -> socket.socket:
        """Try until it is answered: a server that reloads may reset a new connection."""
        while True:
            with suppress(ConnectionError, TimeoutError):
                return self._try()

    def _try(self) -> socket.socket:
        sock = socket.create_connection(self._target.address, timeout=60)  # type: ignore[arg-type]
        sock.sendall(GET)
        if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
            sock.close()
            raise ConnectionResetError
        sock.setblocking(False)
        return sock

    def closed(self) -> int:
        """Return how many were closed, and put others in their place."""
        number = 0
        for at, sock in enumerate(self._socks):
            try:
                is_closed = sock.recv(4096) == b""
            except BlockingIOError:
                is_closed = False
            except ConnectionResetError:
                is_closed = True
            if is_closed:
                sock.close()
                self._socks[at] = self._connect()
                number += 1
        return number

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


def measure(name: str) -> Kept:
    """Reload it RELOADS times, each time when the new version has answered and the old is gone."""
    package, example, start = SERVED_BY[name]
    with ExitStack() as made:
        directory = Path(made.enter_context(tempfile.TemporaryDirectory(prefix="sockmgr-bench-")))
        app = App(example, directory)
        running = made.enter_context(start(app, directory))
        idle = Idle(running.target)
        made.callback(idle.close)
        closed, gone = 0, list[float]()
        with Load(running.target, MODES) as load:
            for number in range(2, RELOADS + 2):
                app.deploy(str(number))
                before = _workers(running.pid)
                running.reload()
                gone_at = _wait_until_gone(before)
                wait_for(lambda number=number: _has_answered(load, number), "the new to answer")
                old = [row.ended for row in load.result.rows if row.version == str(number - 1)]
                gone.append(gone_at - max(old, default=math.nan))
                closed += idle.closed()
            result = load.stop()
    assert len(result.rows) > LEAST, f"{name}: only {len(result.rows)} requests"
    return Kept(
        name=name.format(version(package)),
        answers=len(result.rows) - len(result.failed),
        failed=len(result.failed),
        closed=closed,
        gone=max(gone),
    )


def _workers(pid: int) -> list[int]:
    """Return the workers among the children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    others = b"resource_tracker", b"keeper"
    return [n for n in map(int, text.split()) if not any(word in _words(n) for word in others)]


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _wait_until_gone(pids: list[int]) -> float:
    assert len(pids) == WORKERS
    wait_for(
        lambda: not any(_words(pid) for pid in pids), "the old workers to be gone", timeout=LONG
    )
    return time.monotonic()


def _has_answered(load: Load, number: int) -> bool:
    return any(row.version == str(number) for row in load.result.rows[-500:])


def section() -> Section:
    """Measure each, and return the part of the document on it."""
    narrate(f"{RELOADS} reloads with {IDLE} idle connections …")
    found = [measure(name) for name in SERVED_BY]
    own = found[0]
    rows = [
        (one.name, str(one.answers), str(one.failed), str(one.closed), number(one.gone, "s"))
        for one in found
    ]
    head = ("served by", "answers", "failed", "connections closed", "old workers gone after")
    about = (
        f"{WORKERS} workers, {RELOADS} reloads one after the other, {IDLE} connections that had an "
        f"answer and are idle, and {CLIENTS} that ask again as soon as they are answered. The "
        "keep-alive limit is an hour. *Old workers gone* is the longest time from the last answer "
        "of an old worker to the end of all of them."
    )
    return Section(
        title="Idle connections over reloads",
        text=f"{about}\n\n{table(head, rows)}",
        goals=[
            Goal(what=f"failed requests, {own.name}", value=own.failed, limit=0),
            Goal(what=f"idle connections closed, {own.name}", value=own.closed, limit=0),
            Goal(what=f"old workers gone after their last answer, {own.name}", value=own.gone,
                 limit=SOON, unit="s"),
        ],
    )  # fmt: skip
