"""What a public forge reads is what it takes, and its CI runs what CI runs everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.pages import ROOT

FORGE = ROOT / ".github"
KINDS = {
    "workflows/ci.yml": "github-workflows",
    "ISSUE_TEMPLATE/bug.yml": "github-issue-forms",
    "ISSUE_TEMPLATE/idea.yml": "github-issue-forms",
    "ISSUE_TEMPLATE/config.yml": "github-issue-config",
}


def test_each_file_is_known() -> None:
    files = [path for path in FORGE.rglob("*") if path.is_file()]
    assert {str(path.relative_to(FORGE)) for path in files} == KINDS.keys()


@pytest.mark.parametrize(("file", "kind"), KINDS.items())
def test_each_file_has_the_schema_of_its_kind(file: str, kind: str) -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [program, "--builtin-schema", f"vendor.{kind}", FORGE / file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_workflow_runs_what_ci_runs() -> None:
    text = yaml.safe_load((FORGE / "workflows/ci.yml").read_text())
    (job,) = text["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["sudo env CI=true .ci/run"]
