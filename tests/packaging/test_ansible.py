"""contrib/ansible and its page have the same variables; `make test-hosts` runs the playbook."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


PLAYBOOK = shutil.which("ansible-playbook")
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: PYTHON
    sockmgr_name: shop
    sockmgr_root: ROOT
    sockmgr_release: "2"
    sockmgr_smoke: []
    sockmgr_before: {stat: {exists: true, lnk_target: releases/1}}
    sockmgr_written: {}
    sockmgr_service: {status: {ActiveState: active}}
  tasks:
    - block:
        - ansible.builtin.include_tasks: TASKS/serve.yml
      rescue:
        - ansible.builtin.include_tasks: TASKS/back.yml
"""
# Nobody answers the first time.
LOST = """#!/bin/sh
echo "$1 $(readlink ROOT/current)" >>ROOT/calls
[ "$(wc -l <ROOT/calls)" -gt 1 ] || exit CODE
"""


@pytest.mark.skipif(PLAYBOOK is None, reason="needs ansible-playbook")
@pytest.mark.parametrize(("code", "again"), [(3, ["reload releases/1"]), (1, [])])
def test_a_reload_of_which_nobody_knows_how_it_ended_is_followed_by_one_of_what_served(
    code: int, again: list[str], tmp_path: Path
) -> None:
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/2")
    program = tmp_path / "sockmgr"
    program.write_text(LOST.replace("ROOT", str(tmp_path)).replace("CODE", str(code)))
    program.chmod(0o755)
    tasks = str(ROLE / "tasks")
    play = tmp_path / "play.yml"
    text = PLAY.replace("ROOT", str(tmp_path)).replace("TASKS", tasks)
    play.write_text(text.replace("PYTHON", sys.executable))
    done = subprocess.run(
        [str(PLAYBOOK), "-i", "localhost,", play], capture_output=True, text=True, check=False,
        env=os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSIBLE_HOME": str(tmp_path / "home"),
        },
    )  # fmt: skip
    assert "is as it was before 2: Reload failed" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "calls").read_text().splitlines() == ["reload releases/2", *again]
