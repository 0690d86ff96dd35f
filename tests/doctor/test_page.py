"""docs/doctor.md and the tests have every check that there is."""

from __future__ import annotations

import re
from pathlib import Path

from sockmgr.doctor.finding import Check
from tests.e2e.apps import ROOT


def test_the_page_has_the_checks_of_the_code_each_under_its_patient() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (problem|note) \|", text, re.MULTILINE)
    assert rows == [(check.label, check.severity) for check in Check]
    for check in Check:
        section = text.partition(f"\n## {check.patient.capitalize()}\n")[2].partition("\n## ")[0]
        assert f"| `{check.label}` |" in section


def test_each_check_is_planted_in_a_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [check for check in Check if not re.search(rf"Check\.{check.name}\b", tests)] == []
