"""contrib/ansible and its page have the same variables; `make test-hosts` runs the playbook."""

from __future__ import annotations

import re

from tests.helpers.pages import ROOT
from tests.hosts.site import ANSIBLE, CONFIG

PAGE = (ROOT / "docs" / "hosts.md").read_text()
ROLE = ANSIBLE / "roles" / "sockmgr"
VARIABLE = re.compile(r"\bsockmgr_[a-z_]+")


def test_the_page_has_each_variable_of_the_role() -> None:
    specified = re.findall(
        r"^      (sockmgr_\w+):", (ROLE / "meta/argument_specs.yml").read_text(), re.M
    )
    of_the_playbook = VARIABLE.findall((ANSIBLE / "deploy.yml").read_text())
    rows = [line for line in PAGE.splitlines() if line.startswith("| `sockmgr_")]
    listed = {name for row in rows for name in VARIABLE.findall(row.split("|")[1])}
    assert listed == {*specified, *of_the_playbook}


def test_defaults_are_those_of_variables_that_are_specified() -> None:
    specified = (ROLE / "meta/argument_specs.yml").read_text()
    for name in re.findall(r"^(sockmgr_\w+):", (ROLE / "defaults/main.yml").read_text(), re.M):
        assert f"      {name}:\n" in specified


def test_the_config_on_the_page_is_the_one_that_hosts_are_tested_with() -> None:
    assert CONFIG in PAGE
