"""The figures as Markdown, each goal beside what was measured. Measures nothing."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sockmgr


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure of sockmgr and the most that it should be.

    `tried` completes "where 1.2 is the goal: ...", for one that was missed before.
    """

    what: str
    value: float
    limit: float
    unit: str = ""
    compared: str = ""
    tried: str = ""

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
class Section:
    """What one program under tests/bench found: its part of the document, and its goals.

    `draw` makes pictures of it, in the directory of the document.
    """

    title: str
    text: str
    goals: Sequence[Goal] = ()
    draw: Callable[[Path], None] | None = None


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


def document(sections: Sequence[Section], *, command: str, load_before: float) -> str:
    """Return the whole document."""
    goals = [goal for section in sections for goal in section.goals]
    about = (
        f"Made by `{command}` on {datetime.now(tz=UTC):%Y-%m-%d}: sockmgr {sockmgr.__version__}, "
        f"CPython {platform.python_version()}, Linux {platform.release()}, "
        f"{len(os.sched_getaffinity(0))} cores, which the load generator shares; load average "
        f"{load_before:.1f} before and {os.getloadavg()[0]:.1f} at the end. Read counts and "
        "ratios: milliseconds depend on the machine."
    )
    parts = ["# Benchmarks", about]
    for section in sections:
        if section.text:
            parts += [f"## {section.title}", section.text]
    parts += ["## Goals", table(("what", "measured", "beside", "goal", "met"),
                                [goal.row for goal in goals])]  # fmt: skip
    parts += ["## Where it falls short", _shortfall([goal for goal in goals if not goal.met])]
    return "\n\n".join(parts) + "\n"


def _shortfall(missed: Sequence[Goal]) -> str:
    if not missed:
        return "Every goal was met in this run."
    return "\n".join(
        f"- {goal.what}: {number(goal.value, goal.unit)}, where {number(goal.limit, goal.unit)} "
        f"is the goal{goal.tried and f': {goal.tried}'}"
        for goal in missed
    )


def narrate(text: str) -> None:
    """Tell on standard error what is going on."""
    print(text, file=sys.stderr, flush=True)
