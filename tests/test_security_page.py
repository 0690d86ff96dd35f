"""Each attack that docs/security.md tells of has a test that tries it."""

from __future__ import annotations

import re

from tests.helpers.pages import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def _attacks() -> dict[str, str]:
    """Return the last column of each table with three, by the first."""
    rows = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[2] for row in rows if len(row) == 3 and row[2].strip() != "test"}


def test_each_attack_names_a_test() -> None:
    found = _attacks()
    assert len(found) > 40
    assert [attack for attack, tests in found.items() if not _TEST.search(tests)] == []


def test_each_test_that_is_named_is_there() -> None:
    missing = [
        (file, name)
        for file, name in _TEST.findall(PAGE)
        if not re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []
