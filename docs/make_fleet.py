"""Write docs/fleet.md: the states of workers and generations, drawn from the tables in the code.

Run it after a change of the tables: `python docs/make_fleet.py`. A test fails while it is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sockmgr.fleet.generation import GENERATION_STEPS, WORKER_STEPS
from sockmgr.fleet.messages import Phase, State

PAGE = Path(__file__).with_name("fleet.md")

TOP = """\
# States of workers and generations

Written by `docs/make_fleet.py` from the tables in `sockmgr/fleet/generation.py`. A step that is not
here raises an error and changes nothing.
"""

Steps = Mapping[State, Mapping[State, str]] | Mapping[Phase, Mapping[Phase, str]]


def diagram(steps: Steps, first: str, last: str) -> str:
    """Return a state diagram in mermaid's language."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {old} --> {new}" for old, news in steps.items() for new in news]
    return "\n".join([*lines, f"    {last} --> [*]", "```"])


def table(steps: Steps) -> str:
    """Return the steps as a table."""
    rows = [
        f"| {old} | {new} | {why} |" for old, news in steps.items() for new, why in news.items()
    ]
    return "\n".join(["| from | to | because |", "|---|---|---|", *rows])


def page() -> str:
    """Return the whole page."""
    parts = [
        TOP,
        "## A worker\n",
        diagram(WORKER_STEPS, State.STARTING, State.GONE) + "\n",
        table(WORKER_STEPS) + "\n",
        "## A generation\n",
        diagram(GENERATION_STEPS, Phase.BOOTING, Phase.GONE) + "\n",
        table(GENERATION_STEPS) + "\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
