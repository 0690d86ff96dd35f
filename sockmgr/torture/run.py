"""One run of the matrix against one server: a trial for each scenario, each with a fresh server."""

from __future__ import annotations

import contextlib
import http.client
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sockmgr.errors import ConfigError
from sockmgr.torture.judgement import Judgement, judge
from sockmgr.torture.load import websocket
from sockmgr.torture.load.response import JSON_END, Malformed, Reader, read_own, reader_of_any
from sockmgr.torture.load.result import Row
from sockmgr.torture.plan import Plan
from sockmgr.torture.project import Project
from sockmgr.torture.scenario import SCENARIOS, Scenario
from sockmgr.torture.server import Server
from sockmgr.torture.stage import Seen, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one scenario found. `skipped` says why it was not played; instants are monotonic."""

    name: str
    what: str
    skipped: str = ""
    began_at: float = 0.0
    ended_at: float = 0.0
    rows: Sequence[Row] = ()
    seen: Seen = field(default_factory=Seen)
    judgement: Judgement = field(default_factory=lambda: Judgement(requests=0))

    @property
    def lost(self) -> int:
        """How many requests were lost that need not have been."""
        return self.judgement.lost.total()

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, and nothing else was wrong."""
        return not self.lost and not self.seen.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All trials of one server; `title` is what a reader knows it by."""

    title: str
    plan: Plan
    trials: Sequence[Trial]

    @property
    def passed(self) -> bool:
        """Whether every trial that was played has passed."""
        return all(trial.passed for trial in self.trials)


def torture(
    plan: Plan,
    scenarios: Sequence[Scenario] = SCENARIOS,
    *,
    title: str = "",
    told: Callable[[str], None] = lambda _: None,
) -> Run:
    """Play the scenarios; `told` hears of each before it begins. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-torture-") as name:
        home = Path(name)
        project = Project(plan, home)
        told("does it start, and reload?")
        with _started(plan, home, project) as server:
            abilities = _abilities(server, plan)
            _try_reload(server, plan)
        trials = []
        for scenario in scenarios:
            told(scenario.what)
            trials.append(_trial(plan, scenario, abilities, project, home))
    return Run(title=title or " ".join(plan.command), plan=plan, trials=trials)


def _started(plan: Plan, home: Path, project: Project) -> Server:
    return Server(
        plan.command, plan.port, home=home, cwd=project.cwd, start_timeout=plan.start_timeout
    )


def _trial(
    plan: Plan, scenario: Scenario, abilities: set[str], project: Project, home: Path
) -> Trial:
    if lack := scenario.lacks(plan, abilities):
        return Trial(name=scenario.name, what=scenario.what, skipped=lack)
    modes = list(scenario.load(plan, abilities))
    with _started(plan, home, project) as server:
        began_at = time.monotonic()
        with Stage(plan, server, project, modes, _reader(plan)) as stage:
            scenario.play(stage)
        ended_at = time.monotonic()
    seen = stage.seen
    return Trial(
        name=scenario.name, what=scenario.what, began_at=began_at, ended_at=ended_at,
        rows=stage.rows, seen=seen,
        judgement=judge(
            stage.rows, excuses=seen.excuses, verdicts=seen.verdicts, strict=plan.strict
        ),
    )  # fmt: skip


def _reader(plan: Plan) -> Reader:
    return read_own if plan.own_app else reader_of_any(plan.expect.encode())


def _abilities(server: Server, plan: Plan) -> set[str]:
    """Ask the application what it can be asked. Raises ConfigError if its answer is wrong."""
    status, body = server.answer(plan.path)
    try:
        _reader(plan)(body, JSON_END)
        is_wrong = status != 200
    except Malformed:
        is_wrong = True
    if is_wrong:
        raise ConfigError(
            f"{plan.path} answers with status {status}: {body[:200]!r}",
            means="so nothing could be told from a wrong answer",
            do="name another --path, or correct --expect; with --app, run app:app or app:wsgi",
        )

    def says(path: str, end: bytes, body: bytes | None = None) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            code, answer = server.answer(path, body)
            return code == 200 and answer.rstrip().endswith(end)
        return False

    asked = {
        "slow": says("/slow?s=0", b"}" if plan.own_app else b""),
        "stream": says("/stream?s=0", b"END"),
        "upload": says("/upload", b'"received": 3}', b"abc"),
        "websocket": plan.own_app and _opens_websockets(server),
    }
    return {name for name, answers in asked.items() if answers}


def _opens_websockets(server: Server) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return server.answer("/ws", None, **websocket.REQUEST)[0] == websocket.SWITCHING_PROTOCOLS
    return False


def _try_reload(server: Server, plan: Plan) -> None:
    if plan.reload and (done := server.run(plan.reload)).code:
        raise ConfigError(
            f"the reload command ended with {done.code} when nothing had been changed",
            means=done.said or server.last_words(),
            do=f"correct --reload: {plan.reload}",
        )
