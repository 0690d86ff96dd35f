"""The page about the states of workers and generations says what the code does."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_about_the_fleet_is_what_the_tables_say() -> None:
    made = runpy.run_path(str(DOCS / "make_fleet.py"))["page"]()
    assert (DOCS / "fleet.md").read_text(encoding="utf-8") == made, "run python docs/make_fleet.py"
