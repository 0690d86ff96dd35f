"""One trial as it runs: the server under load, what is done to it, and what is seen meanwhile.

Owns the load and the thread that counts connections; the server is the caller's.
"""

from __future__ import annotations

import itertools
import math
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from sockmgr.errors import ConfigError
from sockmgr.torture.judgement import Excuse, Verdict
from sockmgr.torture.load.judge import Load
from sockmgr.torture.load.mode import Mode, Target
from sockmgr.torture.load.response import Reader
from sockmgr.torture.load.result import Row, first_new, last_old
from sockmgr.torture.plan import Plan
from sockmgr.torture.project import Project
from sockmgr.torture.server import Done, Server

SAMPLE = 0.25  # seconds between two counts of connections
CALM = 0.5  # seconds in which only one version has answered: it is alone
LOOK = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Something that was done to the server, at an instant of time.monotonic()."""

    at: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How many connections each process held."""

    at: float
    connections: dict[int, int]


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a trial has found beside its requests. `problems` fail it, `notes` only tell."""

    moments: list[Moment] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    excuses: list[Excuse] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Stage:
    """A server that is loaded for as long as the `with` block lasts."""

    def __init__(
        self, plan: Plan, server: Server, project: Project, modes: Sequence[Mode], read: Reader
    ) -> None:
        self.plan, self.server, self.project = plan, server, project
        self.seen = Seen()
        target = Target(family=socket.AF_INET, address=("127.0.0.1", plan.port))
        # Every request has a timeout of its own, so nothing is open for longer than that.
        self._load = Load(target, modes, drain=4 * plan.timeout, read=read)
        self._ended = threading.Event()
        self._census = threading.Thread(target=self._count, name="census", daemon=True)
        self._is_to_end = False

    def __enter__(self) -> Self:
        self._load.__enter__()
        self._census.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._load.__exit__(kind, *rest)
        finally:
            self._ended.set()
            self._census.join()
        if self.server.ended is not None and not self._is_to_end:
            words = self.server.last_words(2)
            self.seen.problems.append(f"the server ended with {self.server.ended}:\n  {words}")

    @property
    def rows(self) -> list[Row]:
        return self._load.rows

    # --- what the scenarios are made of ------------------------------------------------------

    def go_on(self, share: float) -> None:
        """Do nothing but load for a share of the time that a trial takes."""
        self._ended.wait(share * self.plan.seconds)

    def reload(self, *, broken: bool = False) -> str:
        """Deploy and reload; return the version that is to answer, "" if nothing tells."""
        version = ""
        if broken:
            self.project.spoil(self.server)
        elif self.plan.deploys:
            version = self.project.deploy(self.server)
        self._mark("broken reload" if broken else f"reload {version}".strip())
        done = self.server.run(self.plan.reload)
        if not broken:
            self._hold(done, version)
        return version

    def wait_for(self, version: str) -> None:
        """Wait until this version answers, and then until no older one does.

        It is a problem if the version does not come; old ones may go on for as long as they like.
        """
        asked_at = self.seen.moments[-1].at
        end = asked_at + 2 * self.plan.timeout
        while version and math.isnan(first_new(self.rows, version, asked_at)):
            if time.monotonic() > end or self.server.ended is not None:
                self.seen.problems.append(f"version {version} has not answered")
                return
            self._ended.wait(LOOK)
        while version and time.monotonic() < end and self._old_answers(version):
            self._ended.wait(LOOK)

    def _old_answers(self, version: str) -> bool:
        since = time.monotonic() - CALM
        last = itertools.takewhile(lambda row: row.scheduled > since, reversed(self.rows))
        return any(row.version not in {version, ""} for row in last)

    def tell_versions(self, version: str) -> None:
        asked_at = self.seen.moments[-1].at
        new, old = (each(self.rows, version, asked_at) for each in (first_new, last_old))
        if version and not math.isnan(new):
            last = "at once" if math.isnan(old) else f"until {old:.1f} s after"
            self.seen.notes.append(f"version {version} after {new:.1f} s; older ones {last}")

    def strike_worker(self, number: signal.Signals) -> int:
        """Kill or stop the worker with most connections; return its pid, 0 if there is none."""
        held = self.server.connections()
        workers = sorted(held.keys() - {self.server.pid}, key=lambda pid: len(held[pid]))
        if not workers:
            self.seen.notes.append("no process beside the first one has connections: none was hit")
            return 0
        self._strike(workers[-1], number, "worker")
        return workers[-1]

    def strike_master(self) -> None:
        """Kill the process that was started, and nothing else."""
        self._is_to_end = True
        self._strike(self.server.pid, signal.SIGKILL, "first process")
        self.server.wait_ended(self.plan.timeout)

    def start_again(self) -> None:
        """Start the server's command once more; it is a problem if it does not stay."""
        self._mark("started again")
        self.server.start()
        if self.server.wait_ended(max(1.5, self.plan.seconds / 2)):
            words = self.server.last_words(1)
            self.seen.problems.append(
                f"started again, it ended with {self.server.ended}: {words[:200]}"
            )

    def resume(self, pid: int) -> None:
        """Let a stopped worker go on, and note whether it was still there."""
        is_there = pid in self.server.processes()
        self.seen.notes.append("nobody replaced it" if is_there else "it was replaced")
        self.server.signal(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Have the server stop gracefully; it is a problem if it does not end."""
        self._is_to_end = True
        self._mark("stop")
        asked_at = time.monotonic()
        self.seen.excuses.append(Excuse(why="begun after the stop", since=asked_at))
        done = self.server.run(self.plan.stop)
        if done.code:
            self.seen.problems.append(f"the stop command ended with {done.code}: {done.said}")
        if self.server.wait_ended(2 * self.plan.timeout):
            self.seen.notes.append(f"it ended after {time.monotonic() - asked_at:.1f} s")
        else:
            self.seen.problems.append(f"it had not ended {2 * self.plan.timeout:g} s after")

    # --- inside --------------------------------------------------------------------------------

    def _mark(self, what: str) -> None:
        self.seen.moments.append(Moment(at=time.monotonic(), what=what))

    def _hold(self, done: Done, version: str) -> None:
        if done.code in {126, 127}:  # of the shell: the command is not there
            raise ConfigError(
                f"the reload command ended with {done.code}", means=done.said, do="correct --reload"
            )
        if done.code:
            said = done.said[-300:]
            self.seen.problems.append(f"the reload command ended with {done.code}: {said}")
        elif self.plan.waits and version:
            self.seen.verdicts.append(Verdict(version=int(version), told_at=done.told_at))

    def _strike(self, pid: int, number: signal.Signals, what: str) -> None:
        # Stopped first: what it holds when it is killed is known then, and can be excused.
        ports = self.server.freeze(pid)
        self.server.signal(pid, number)
        until = time.monotonic() if number == signal.SIGKILL else math.inf
        verb = "killed" if number == signal.SIGKILL else "stopped"
        self._mark(f"{what} {verb}")
        self.seen.excuses.append(
            Excuse(why=f"held by the {what} that was {verb}", ports=ports, until=until)
        )

    def _count(self) -> None:
        while not self._ended.wait(SAMPLE):
            held = self.server.connections()
            counts = {pid: len(ports) for pid, ports in held.items()}
            self.seen.samples.append(Sample(at=time.monotonic(), connections=counts))
