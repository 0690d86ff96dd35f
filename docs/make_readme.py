"""Write what README.md has measured, from docs/torture.md: `python docs/make_readme.py`.

A test fails while it is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent
TORTURE, README = DOCS / "torture.md", DOCS.parent / "README.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
# What README shows of it: the scenario, and its name there.
SHOWN = {
    "reload": "a reload", "broken": "broken code", "worker-killed": "a worker killed",
    "master-killed": "the first process killed", "long-answers": "long answers",
}  # fmt: skip
UNDER = "sockmgr, "


def rows(page: str) -> dict[str, dict[str, str]]:
    """Return the table: server -> scenario -> cell."""
    _, _, rest = page.partition(BEGIN)
    lines = [line for line in rest.partition(END)[0].splitlines() if line.startswith("|")]
    head, _, *found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: dict(zip(head[1:], cells, strict=True)) for name, *cells in found}


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(found: dict[str, dict[str, str]]) -> str:
    """Return each server that was measured by itself and under sockmgr: lost alone / under it."""
    shown = [line(["", *SHOWN.values()]), line(["---"] * (len(SHOWN) + 1))]
    for name, alone in found.items():
        if under := found.get(f"{UNDER}{name}"):
            shown.append(line([name, *(f"{alone[each]} / {under[each]}" for each in SHOWN)]))
    return "\n".join(shown) + "\n"


def readme() -> str:
    """Return README.md with the table of now."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(rows(TORTURE.read_text(encoding='utf-8')))}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")
