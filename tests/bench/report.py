"""The figures as Markdown, each goal beside what was measured. Measures nothing."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sockmgr
from tests.bench.costs import IDLE_SECONDS, TRIVIAL_WORKERS, Idle, Spawning, cores
from tests.bench.rollout import MODES, Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure of sockmgr and the most that it should be."""

    what: str
    value: float
    limit: float
    unit: str = ""
    compared: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    @property
    def row(self) -> Sequence[str]:
        return (
            self.what, number(self.value, self.unit), self.compared,
            f"≤ {number(self.limit, self.unit)}", "yes" if self.met else "**no**",
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What costs.py measured."""

    idle: Idle
    kept: tuple[float, float]
    short: tuple[float, float]
    first_answer: tuple[float, float]
    spawning: Spawning


def number(value: float, unit: str = "") -> str:
    """Write a figure with three digits that matter."""
    if math.isnan(value):
        return "never"
    text = f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}".strip()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goals(figures: Sequence[Figures], boot: float, costs: Costs | None) -> list[Goal]:
    """Compare what was measured with what sockmgr promises itself."""
    found = []
    for one in (one for one in figures if one.name.startswith("sockmgr")):
        found += [
            Goal(what=f"failed requests, {one.name}", value=one.failed.total(), limit=0),
            Goal(what=f"p99 in the reload / p99 before, {one.name}", value=one.ratio, limit=1.5),
        ]
        if "uvicorn" in one.name:
            compared = (
                f"boot alone {number(boot, 's')}; cut-over after {number(one.first_new, 's')}"
            )
            found.append(
                Goal(what="whole reload / boot of the four workers alone",
                     value=one.told / boot, limit=1.5, compared=compared)
            )  # fmt: skip
    return found + (_cost_goals(costs) if costs else [])


def _cost_goals(costs: Costs) -> list[Goal]:
    managed, bare = costs.first_answer
    return [
        Goal(what=f"wake-ups of an idle manager in {IDLE_SECONDS:g} s",
             value=costs.idle.switches, limit=2),
        Goal(what="memory of a manager of 4 workers (PSS)",
             value=costs.idle.pss / 2**20, limit=30, unit="MB"),
        Goal(what="first answer later than that of the bare command by", value=managed - bare,
             limit=0.35, unit="s", compared=f"{number(managed, 's')} and {number(bare, 's')}"),
        Goal(what="manager's processor time for one worker", value=costs.spawning.cost * 1000,
             limit=3, unit="ms"),
        Goal(what=f"longest silence while it starts {TRIVIAL_WORKERS} workers",
             value=costs.spawning.stall * 1000, limit=100, unit="ms",
             compared=f"all started after {number(costs.spawning.wall, 's')}"),
    ]  # fmt: skip


def reloads(figures: Sequence[Figures]) -> str:
    """Return the table of the contenders."""
    head = (
        "tool", "requests", "failed", "p50 / p99 before (ms)", "p50 / p99 in the reload (ms)",
        "p99 ratio", "first new answer (s)", "last old answer on a new connection (s)",
        "old beside new (s)",
        "says it is done after (s)",
    )  # fmt: skip
    return table(head, [_reload(one) for one in figures])


def _reload(one: Figures) -> Sequence[str]:
    failed = ", ".join(f"{count} {name}" for name, count in one.failed.most_common())
    return (
        one.name,
        str(one.requests),
        f"{one.failed.total()}: {failed}" if failed else "0",
        _pair(one.steady),
        _pair(one.reloading),
        number(one.ratio),
        number(one.first_new),
        number(one.last_old),
        number(one.mixed),
        number(one.told) if one.told > 0.1 else "does not say",
    )


def _pair(times: dict[str, float]) -> str:
    return f"{number(times['p50'] * 1000)} / {number(times['p99'] * 1000)}"


def throughput(costs: Costs) -> str:
    """Return the table of requests a second."""
    rows = [
        ("kept connections", *map(number, costs.kept), number(costs.kept[0] / costs.kept[1])),
        ("new connections", *map(number, costs.short), number(costs.short[0] / costs.short[1])),
    ]
    return table(("16 clients", "under sockmgr (1/s)", "by hand (1/s)", "ratio"), rows)


def document(
    figures: Sequence[Figures],
    boot: float,
    costs: Costs | None,
    *,
    command: str,
    load_before: float,
) -> str:
    """Return the whole document."""
    found = goals(figures, boot, costs)
    missed = [goal for goal in found if not goal.met]
    about = (
        f"Made by `{command}` on {datetime.now(tz=UTC):%Y-%m-%d}: sockmgr {sockmgr.__version__}, "
        f"CPython {platform.python_version()}, Linux {platform.release()}, {cores()} cores, which "
        f"the load generator shares; load average {load_before:.1f} before and "
        f"{os.getloadavg()[0]:.1f} at the end. Read counts and ratios: milliseconds "
        "depend on the machine."
    )
    parts = ["# Benchmarks", about]
    if figures:
        load = ", ".join(f"`{mode}`" for mode in MODES)
        parts += [
            "## Reloads under load",
            f"Four workers of an application that takes 0.5 s to import, two reloads each, load "
            f"{load}. Times count from the request to reload; the worse of the two is shown. "
            f"Latency is of short requests and kept connections, from the instant each was due. "
            f"The four workers, started by hand without load, all serve after {boot:.2f} s.",
            reloads(figures),
        ]
    if costs:
        parts += [
            "## Requests a second",
            "The same four uvicorn processes, on a socket of the manager and on one opened by "
            "hand; the manager is not on the path of a request.",
            throughput(costs),
        ]
    parts += ["## Goals", table(("what", "measured", "beside", "goal", "met"),
                                [goal.row for goal in found])]  # fmt: skip
    parts += ["## Where it falls short", _shortfall(missed)]
    return "\n\n".join(parts) + "\n"


def _shortfall(missed: Sequence[Goal]) -> str:
    if not missed:
        return "Every goal was met in this run."
    return "\n".join(
        f"- {goal.what}: {number(goal.value, goal.unit)}, where {number(goal.limit, goal.unit)} "
        "is the goal"
        for goal in missed
    )


def narrate(text: str) -> None:
    """Tell on standard error what is going on."""
    print(text, file=sys.stderr, flush=True)
