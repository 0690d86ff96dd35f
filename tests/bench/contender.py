"""The tools that are compared: how each is started with four workers, told to reload, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.e2e.apps import App
from tests.e2e.harness import BIN, Manager, end_marked, marked_environment, wait_for
from tests.helpers.load import Target

WORKERS = 4
IMPORT_SECONDS = "0.5"
UVICORN = (str(BIN / "uvicorn"), "--no-access-log", "--log-level", "warning")
GTHREAD = (str(BIN / "gunicorn"), "-k", "gthread", "--threads", "8", "--no-control-socket")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One tool that serves: where, and how to reload it.

    `reload` returns when the tool says that the reload is done, or at once if it never says so.
    """

    target: Target
    pid: int
    reload: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One tool with one server; `start` gives it its application and a directory."""

    name: str
    example: str
    versions: tuple[str, ...]
    start: Callable[[App, Path], AbstractContextManager[Running]]

    @property
    def described(self) -> str:
        """The name with the versions of what runs."""
        return f"{self.name} ({', '.join(f'{name} {version(name)}' for name in self.versions)})"


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def environment(**more: str) -> Mapping[str, str]:
    """Return the environment of a tool: its programs are found, its bytecode is not kept."""
    path = f"{BIN}:{os.environ.get('PATH', '')}"
    return {"PYTHONDONTWRITEBYTECODE": "1", "IMPORT_SECONDS": IMPORT_SECONDS, "PATH": path, **more}


@contextmanager
def started(argv: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a tool in a session of its own; end it and all that it started."""
    marked = marked_environment(environment())
    with (directory / "tool.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=directory, env=marked, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end_marked(marked)


def answers(target: Target) -> bool:
    """Whether somebody answers there."""
    try:
        with socket.create_connection(target.address, timeout=5) as sock:  # type: ignore[arg-type]
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return sock.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def toml(command: tuple[str, ...], app: App) -> str:
    """Return a config of one service with four workers."""
    words = ", ".join(f'"{word}"' for word in command)
    return f"""
[listen]
http = "tcp://127.0.0.1:0"

[service.web]
command = [{words}]
workers = {WORKERS}
cwd = "{app.directory}"
"""


def _sockmgr(command: tuple[str, ...]) -> Callable[[App, Path], AbstractContextManager[Running]]:
    @contextmanager
    def start(app: App, directory: Path) -> Iterator[Running]:
        with Manager(directory, toml(command, app), env=environment()) as manager:

            def reload() -> None:
                done = manager.reload()
                assert done.code == 0, done.stderr

            yield Running(target=manager.target(), pid=manager.pid, reload=reload)

    return start


def _tool(
    command: Callable[[App, Path, int], list[str]], reload: Callable[[int, Path], None]
) -> Callable[[App, Path], AbstractContextManager[Running]]:
    @contextmanager
    def start(app: App, directory: Path) -> Iterator[Running]:
        port = free_port()
        target = Target.at_url(f"http://127.0.0.1:{port}")
        with started(command(app, directory, port), app.directory) as process:
            wait_for(lambda: answers(target), "the tool to answer")
            time.sleep(3)  # none of them tells when all four workers are up
            yield Running(
                target=target, pid=process.pid, reload=lambda: reload(process.pid, directory)
            )

    return start


def _hup(pid: int, _: Path) -> None:
    os.kill(pid, signal.SIGHUP)


def _uvicorn(_app: App, _directory: Path, port: int) -> list[str]:
    return [*UVICORN, "--workers", str(WORKERS), "--port", str(port), "app:app"]


def _gunicorn(_app: App, _directory: Path, port: int) -> list[str]:
    return [*GTHREAD, "-w", str(WORKERS), "-b", f"127.0.0.1:{port}", "app:app"]


def _circus(app: App, directory: Path, port: int) -> list[str]:
    ini = directory / "circus.ini"
    ini.write_text(f"""
[circus]
endpoint = ipc://{directory}/circus.sock
pubsub_endpoint = ipc://{directory}/pubsub.sock

[socket:http]
host = 127.0.0.1
port = {port}

[watcher:web]
cmd = {" ".join(UVICORN)} --fd $(circus.sockets.http) app:app
working_dir = {app.directory}
numprocesses = {WORKERS}
use_sockets = True
copy_env = True
""")
    return [sys.executable, "-m", "circus.circusd", str(ini)]


def _circus_reload(_: int, directory: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "circus.circusctl", "--timeout", "60",
         "--endpoint", f"ipc://{directory}/circus.sock", "reload", "web", "--waiting"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


CONTENDERS = (
    Contender(
        name="sockmgr, uvicorn",
        example="asgi",
        versions=("uvicorn",),
        start=_sockmgr((*UVICORN, "--fd", "{http}", "app:app")),
    ),
    Contender(
        name="sockmgr, Gunicorn gthread",
        example="wsgi",
        versions=("gunicorn",),
        start=_sockmgr((*GTHREAD, "app:app")),
    ),
    Contender(
        name="uvicorn --workers 4, HUP",
        example="asgi",
        versions=("uvicorn",),
        start=_tool(_uvicorn, _hup),
    ),
    Contender(
        name="Gunicorn gthread -w 4, HUP",
        example="wsgi",
        versions=("gunicorn",),
        start=_tool(_gunicorn, _hup),
    ),
    Contender(
        name="circus reload, uvicorn",
        example="asgi",
        versions=("circus", "uvicorn"),
        start=_tool(_circus, _circus_reload),
    ),
)
