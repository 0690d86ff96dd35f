"""`sockmgr dev` beside `uvicorn --reload` and the bare start of the same command."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sockmgr.torture.load.result import percentile
from tests.bench.contender import UVICORN, environment, free_port, started
from tests.bench.costs import cpu, directory
from tests.bench.report import Goal, Section, narrate, number, table
from tests.e2e.dev import Dev
from tests.e2e.harness import Done, Manager, varlink
from tests.helpers.load import Load, Target

ROUNDS = 15
LOAD = "short:rate=50"
WATCHED_FILES = 20_000
IDLE_SECONDS = 30.0
LOOK = 0.004  # seconds between two looks for the new code ...
UNSEEN = 0.1  # ... but none disturbs its start before that could be over
SETTLED = 0.5  # a developer looks at what there is; what was replaced has ended
APP = """\
async def app(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"content-type", b"application/json")]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": b'{{"pid": 1, "version": "{version}"}}'}})
"""
IDLE = """
[listen]
http = "tcp://127.0.0.1:0"
[service.web]
command = ["uvicorn", "app:app"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saves:
    """How one tool took saves: seconds to the first answer of new code; requests, and failed."""

    name: str
    seconds: float
    requests: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Itself:
    """What a command takes beyond what the manager takes for it: seconds, and of a processor."""

    wall: float
    cpu: float

    def goal(self, verb: str) -> Goal:
        """Return what it should take at most."""
        compared = f"{number(self.cpu * 1000, 'ms')} of processor time"
        value = self.wall * 1000
        return Goal(
            what=f"`sockmgr {verb}` itself", value=value, limit=150, unit="ms", compared=compared
        )


class Project:
    """One file, which an editor saves in one step."""

    def __init__(self, path: Path) -> None:
        self.directory = path
        self.version = 0
        self.save()

    def save(self) -> bytes:
        """Save the next version; return what tells it in an answer."""
        self.version += 1
        new = self.directory / "app.py.new"
        new.write_text(APP.format(version=self.version))
        new.rename(self.directory / "app.py")
        return f'"{self.version}"'.encode()


def section() -> Section:
    """Measure all of them."""
    narrate("saves in development …")
    bare, *tools = _saves()
    narrate("commands …")
    status, reload = _commands()
    narrate("idle watcher …")
    idle = _idle()
    rows = [
        (one.name, number(one.seconds), number(one.seconds / bare), str(one.requests),
         str(one.failed))
        for one in tools
    ]  # fmt: skip
    head = ("tool", "save to first answer (s)", "to the bare start", "requests", "failed")
    about = (
        f"One uvicorn worker with a trivial application, {ROUNDS} saves, the median, under "
        f"`{LOAD}`; the bare start is that of the same command to its first answer."
    )
    dev = tools[0]
    goals = (
        Goal(what="save to first answer under sockmgr dev / bare start",
             value=dev.seconds / bare, limit=1.3,
             compared=f"{number(dev.seconds, 's')} and {number(bare, 's')}"),
        Goal(what="failed requests during saves, sockmgr dev", value=dev.failed, limit=0),
        Goal(what=f"sockmgr dev, idle, {WATCHED_FILES} files: share of a processor",
             value=idle * 100, limit=0.5, unit="%"),
        status.goal("status"),
        reload.goal("reload"),
    )  # fmt: skip
    rows.append(("bare start", number(bare), "1", "", ""))
    text = f"{about}\n\n{table(head, rows)}"
    return Section(title="Saves in development", text=text, goals=goals)


# --- Saves ------------------------------------------------------------------------------------


def _saves() -> tuple[float, Saves, Saves]:
    """Return the bare start, and each tool; in turn, so that all meet the same weather."""
    bare: list[float] = []
    times: list[list[float]] = [[], []]
    with directory() as path:
        places = [path / name for name in ("bare", "dev", "reload")]
        for place in places:
            place.mkdir()
        still, *projects = map(Project, places)
        with (
            _dev(projects[0]) as first,
            _reload(projects[1]) as second,
            Load(first, [LOAD]) as load_1,
            Load(second, [LOAD]) as load_2,
        ):
            for _ in range(ROUNDS):
                bare.append(_bare(still))
                for project, target, found in zip(projects, (first, second), times, strict=True):
                    began_at = time.monotonic()
                    part = project.save()
                    time.sleep(UNSEEN)
                    found.append(_answered(target, part) - began_at)
                    time.sleep(SETTLED)
            results = [load_1.stop(), load_2.stop()]
    names = ("sockmgr dev", "uvicorn --reload")
    saves = [
        Saves(name=name, seconds=percentile(seconds, 0.5), requests=len(result.rows),
              failed=len(result.failed))
        for name, seconds, result in zip(names, times, results, strict=True)
    ]  # fmt: skip
    return percentile(bare, 0.5), saves[0], saves[1]


@contextmanager
def _dev(project: Project) -> Iterator[Target]:
    listen = ("--listen", "http=tcp://127.0.0.1:0")
    with Dev(project.directory, *listen, "--", *UVICORN, "app:app") as dev:
        yield dev.target()


@contextmanager
def _reload(project: Project) -> Iterator[Target]:
    port = free_port()
    argv = [*UVICORN, "--reload", "--port", str(port), "app:app"]
    with started(argv, project.directory):
        target = Target.at_url(f"http://127.0.0.1:{port}")
        _answered(target, b'"1"')
        yield target


def _bare(project: Project) -> float:
    port = free_port()
    began_at = time.monotonic()
    with started([*UVICORN, "--port", str(port), "app:app"], project.directory):
        return _answered(Target.at_url(f"http://127.0.0.1:{port}"), b'"1"') - began_at


def _answered(target: Target, part: bytes) -> float:
    """Return the time.monotonic() of the first answer that has `part`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if part in _get(target):
            return time.monotonic()
        time.sleep(LOOK)
    raise TimeoutError(f"no answer with {part!r}")


def _get(target: Target) -> bytes:
    answer = b""
    try:
        with socket.create_connection(target.address, timeout=10) as sock:  # type: ignore[arg-type]
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while data := sock.recv(4096):
                answer += data
    except OSError:
        return b""
    return answer


# --- Nothing to do ----------------------------------------------------------------------------


def _idle() -> float:
    """Return the share of a processor that WATCHED_FILES cost while nothing happens."""
    with directory() as path:
        project = Project(path)
        for number in range(WATCHED_FILES):
            folder = path / f"package_{number // 100}"
            folder.mkdir(exist_ok=True)
            (folder / f"module_{number}.py").write_text("")
        (path / "sockmgr.toml").write_text(IDLE)
        with Dev(path) as dev:
            dev.see("web 1 serves")
            project.save()  # it is found, so all is watched
            dev.see("web 1 → 2", timeout=60)
            time.sleep(3)
            before = cpu(dev.process.pid)
            time.sleep(IDLE_SECONDS)
            return (cpu(dev.process.pid) - before) / IDLE_SECONDS


# --- What the commands themselves cost ----------------------------------------------------------


def _commands() -> tuple[Itself, Itself]:
    """Measure `status` and `reload`."""
    with directory() as path:
        Project(path)
        config = f'{IDLE}cwd = "{path}"\n'
        with Manager(path, config, env=environment()) as manager:
            return _itself(manager, "status", _status), _itself(manager, "reload", _reloading)


def _itself(manager: Manager, verb: str, managers: Callable[[Manager, Done], float]) -> Itself:
    """Run a verb again and again; `managers` tells how long the manager took."""
    wall, processor = [], []
    for _ in range(ROUNDS):
        time.sleep(SETTLED)
        before = _children()
        done = manager.run(verb)
        assert done.code == 0, done.stderr
        processor.append(_children() - before)
        wall.append(done.seconds - managers(manager, done))
    return Itself(wall=percentile(wall, 0.5), cpu=percentile(processor, 0.5))


def _status(manager: Manager, _: Done) -> float:
    began_at = time.monotonic()
    varlink(manager.control, "Status")
    return time.monotonic() - began_at


def _reloading(_: Manager, done: Done) -> float:
    (verdict,) = done.answer
    return float(verdict["seconds"])


def _children() -> float:
    """Return the processor time of the commands so far: of children that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
