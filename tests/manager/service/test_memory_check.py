"""How much memory a new worker is taken to need, also where the kernel shows little of others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, subprocess
from sockmgr.config.spec import Spec
from sockmgr.kernel import memory
from sockmgr.manager.service.memory_check import fitting

memory.available = lambda: 1000
spec = Spec(service="web", argv=("a",), executable="/a", cwd="/", workers=4)
nobody = {"user": 65534, "group": 65534, "extra_groups": []}
with subprocess.Popen(["cat"], stdin=subprocess.PIPE, **nobody) as one:
    (found,) = asyncio.run(fitting([spec], {"web": [one.pid]}))
    one.stdin.close()
print(found.rollout.surge)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
@pytest.mark.parametrize("without", ["-kill", "-sys_ptrace,-perfmon,-sys_admin"])
def test_a_reload_goes_in_portions_also_where_root_may_not_see_what_workers_share(
    without: str,
) -> None:
    rights = ("setpriv", f"--bounding-set={without}", f"--inh-caps={without}")
    told = subprocess.run(
        [*rights, sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert told.stdout == "1\n"
