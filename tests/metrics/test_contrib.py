"""The dashboard and the alerts in contrib ask for what there is, in a language that there is."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sockmgr.metrics import families
from tests.helpers.pages import ROOT

RULES = ROOT / "contrib" / "prometheus" / "sockmgr.rules.yml"
PAGE = (ROOT / "docs" / "metrics.md").read_text()
CASES = Path(__file__).with_name("alerts.test.yml")
DASHBOARD: dict[str, Any] = json.loads((ROOT / "contrib/grafana/sockmgr.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool is installed")

_NAME = re.compile(r"\bsockmgr_\w+")
_LABELS = re.compile(r"(\bsockmgr_\w+)\{([^}]*)\}")
_COLUMNS = 24
_BY_PROMETHEUS = {"instance"}


def known() -> set[str]:
    """Return the names of all series that `sockmgr metrics` may print."""
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    each = [(family.name, ends.get(family.type, ("",))) for family in families.known()]
    return {name + end for name, found in each for end in found}


def labels_of(name: str) -> set[str]:
    """Return the labels that the page has for a metric."""
    row = re.search(rf"^\| `{name.removesuffix('_bucket')}` \|[^|]*\|([^|]*)\|", PAGE, re.MULTILINE)
    assert row, name
    return set(re.findall(r"`(\w+)`", row[1]))


def dashboard_exprs() -> list[str]:
    exprs = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return exprs + [each["expr"] for each in DASHBOARD["annotations"]["list"]]


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def exprs() -> list[str]:
    queries = [str(v["query"]) for v in DASHBOARD["templating"]["list"]]
    return [*dashboard_exprs(), *queries, *(rule["expr"] for rule in rules())]


def test_each_metric_that_is_asked_for_is_one_that_there_is_with_its_labels() -> None:
    named = {name for expr in exprs() for name in _NAME.findall(expr)}
    assert len(named) > 20
    assert named <= known()
    for name, chosen in (found for expr in exprs() for found in _LABELS.findall(expr)):
        labels = set(re.findall(r"(\w+)\s*[=!]", chosen))
        assert labels <= labels_of(name) | _BY_PROMETHEUS, (name, chosen)


def test_the_page_shows_the_rules_of_the_file() -> None:
    comment, _, text = RULES.read_text().partition("\n")
    assert comment.startswith("# ")
    assert f"```\n{text}```\n" in PAGE


@needs_promtool
def test_promtool_takes_the_rules_and_finds_them_to_fire_when_they_should() -> None:
    for verb in (["check", "rules", RULES], ["test", "rules", CASES]):
        done = subprocess.run(
            [str(PROMTOOL), *verb], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_takes_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    asked = [re.sub(r"\$__\w+", "5m", expr).replace("$", "") for expr in dashboard_exprs()]
    recorded = [{"record": f"query:{n}", "expr": expr} for n, expr in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    done = subprocess.run(
        [str(PROMTOOL), "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case() -> None:
    cases = yaml.safe_load(CASES.read_text())["tests"]
    tried = {case["alertname"] for test in cases for case in test["alert_rule_test"]}
    assert tried == {rule["alert"] for rule in rules()}


# --- The dashboard -------------------------------------------------------------------------------


def squares(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
    at = panel["gridPos"]
    return itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))


def test_panels_have_numbers_and_places_of_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken = [square for panel in DASHBOARD["panels"] for square in squares(panel)]
    assert len(taken) == len(set(taken))
    assert all(0 <= column < _COLUMNS for column, _ in taken)


def test_panels_use_the_variables_that_there_are_and_the_chosen_data_source() -> None:
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert used == variables
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert [target["refId"] for target in panel["targets"]] == list("ABC")[
            : len(panel["targets"])
        ]
        assert panel["description"].endswith(".")
