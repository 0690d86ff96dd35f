"""The matrix: what is done to a server in each trial, under which load, and what that needs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from sockmgr.torture.load.mode import Kind, Mode
from sockmgr.torture.plan import Plan
from sockmgr.torture.stage import Stage

NEEDS = {
    "slow": "the application does not answer GET /slow?s=0",
    "stream": "GET /stream?s=0 does not end with END",
    "upload": 'POST /upload does not say {…, "received": BYTES}',
    "websocket": "not --app, or the server opens no WebSocket",
    "reload": "no --reload",
    "breaks": "neither --app nor --break",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row of the matrix. `modes` is the load beside the short requests."""

    name: str
    what: str
    play: Callable[[Stage], None]
    modes: tuple[str, ...] = ("ka", "slow", "stream")
    needs: tuple[str, ...] = ()
    timeout: float = 60.0  # of a request at most, in seconds

    def lacks(self, plan: Plan, abilities: Collection[str]) -> str:
        """Return why this cannot be played, "" if it can; `abilities` are of the application."""
        given = {
            "reload": bool(plan.reload),
            "breaks": plan.breaks,
            **dict.fromkeys(abilities, True),
        }
        return next((NEEDS[need] for need in self.needs if not given.get(need)), "")

    def load(self, plan: Plan, abilities: Collection[str]) -> Iterator[Mode]:
        """Yield the modes of load, all of them open loops but the pressure by kept connections."""
        timeout, rate = min(plan.timeout, self.timeout), plan.rate
        asked = Mode(kind=Kind.SHORT, path=plan.path, rate=rate, timeout=timeout)
        yield asked
        if "ka" in self.modes:
            yield replace(asked, kind=Kind.KA, conns=16)
        if "kat" in self.modes:
            yield replace(asked, kind=Kind.KAT, rate=0.0, conns=16, think=0.01)
        if "half" in self.modes:
            yield replace(asked, kind=Kind.HALF, rate=20, s=0.6)
        if "slow" in self.modes and "slow" in abilities:
            yield _lasting(Kind.SLOW, 2, 0.7, timeout)
        if "stream" in self.modes and "stream" in abilities:
            yield _lasting(Kind.STREAM, 1, 1.5, timeout)
        if "long" in self.modes:
            yield _lasting(Kind.SLOW, 6, 1.5, timeout)
            yield _lasting(Kind.STREAM, 6, 2, timeout)
        if "upload" in self.modes:
            yield Mode(kind=Kind.UPLOAD, path="/upload", rate=10, s=0.7, timeout=timeout)
        if "websocket" in self.modes:
            yield replace(_lasting(Kind.WEBSOCKET, 10, 1.5, timeout), path="/ws")


def _lasting(kind: Kind, rate: float, seconds: float, timeout: float) -> Mode:
    """Return a load of answers that take so many seconds, besides which they have the timeout."""
    return Mode(kind=kind, path=f"/{kind}", rate=rate, s=seconds, timeout=timeout + seconds)


def _reload(stage: Stage) -> None:
    stage.go_on(0.3)
    version = stage.reload()
    stage.wait_for(version)
    stage.go_on(0.6)
    stage.tell_versions(version)


def _storm(stage: Stage) -> None:
    stage.go_on(0.2)
    for _ in range(4):
        stage.reload()
        stage.go_on(0.05)
    version = stage.reload()
    stage.wait_for(version)
    stage.go_on(0.5)
    stage.tell_versions(version)


def _broken(stage: Stage) -> None:
    stage.go_on(0.2)
    stage.reload(broken=True)
    stage.go_on(0.6)
    version = stage.reload()
    stage.wait_for(version)
    stage.go_on(0.2)
    stage.tell_versions(version)


def _worker_killed(stage: Stage) -> None:
    stage.go_on(0.3)
    stage.strike_worker(signal.SIGKILL)
    stage.go_on(0.7)


def _master_killed(stage: Stage) -> None:
    stage.go_on(0.3)
    stage.strike_master()
    stage.go_on(0.25)
    stage.start_again()


def _worker_stopped(stage: Stage) -> None:
    stage.go_on(0.2)
    pid = stage.strike_worker(signal.SIGSTOP)
    stage.go_on(0.8)
    if pid:
        stage.resume(pid)


def _stop(stage: Stage) -> None:
    stage.go_on(0.6)
    stage.stop()


SCENARIOS = (
    Scenario(name="steady", what="the load alone", play=lambda stage: stage.go_on(1)),
    Scenario(name="reload", what="one reload", play=_reload, needs=("reload",)),
    Scenario(
        name="storm", what="five reloads, one upon the other", play=_storm, needs=("reload",)
    ),
    Scenario(
        name="broken", what="a reload of code that cannot be loaded, then one that mends it",
        play=_broken, needs=("reload", "breaks"),
    ),
    Scenario(name="worker-killed", what="SIGKILL for a worker", play=_worker_killed),
    Scenario(
        name="master-killed", what="SIGKILL for the first process, which is then started again",
        play=_master_killed,
    ),
    Scenario(
        name="worker-stopped", what="SIGSTOP for a worker", play=_worker_stopped, timeout=2.0
    ),
    Scenario(
        name="half-written", what="a reload while requests come in four pieces", play=_reload,
        modes=("half",), needs=("reload",),
    ),
    Scenario(
        name="long-answers", what="a reload while answers take 1.5 and 2 s", play=_reload,
        modes=("long",), needs=("reload", "slow", "stream"),
    ),
    Scenario(
        name="uploads", what="a reload while bodies come in eight pieces", play=_reload,
        modes=("upload",), needs=("reload", "upload"),
    ),
    Scenario(
        name="keep-alive", what="a reload while 16 kept connections are always busy",
        play=_reload, modes=("kat",), needs=("reload",),
    ),
    Scenario(
        name="websockets", what="a reload while WebSockets are open for 1.5 s each", play=_reload,
        modes=("websocket",), needs=("reload", "websocket"),
    ),
    Scenario(name="stop", what="a graceful stop", play=_stop),
)  # fmt: skip
