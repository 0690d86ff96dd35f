"""CAP_BPF is the manager's alone: no worker gets it, and the next manager by execve(2) does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """if True:
    import os, subprocess, sys
    sys.path.insert(0, os.getcwd())
    from sockmgr.kernel.process import hand_on_bpf, withhold_bpf
    from sockmgr.kernel.steering import round_robin
    from tests.helpers.capabilities import CAP_BPF, become_nobody

    print_own = ["/bin/grep", "CapEff", "/proc/self/status"]
    become_nobody(CAP_BPF, ambient=True)
    subprocess.run(print_own, check=True)
    withhold_bpf()
    subprocess.run(print_own, check=True)
    print(round_robin.refusal(), flush=True)
    hand_on_bpf()
    os.execv(print_own[0], print_own)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_children_do_not_get_cap_bpf_and_what_the_manager_becomes_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    has, none = f"CapEff:\t{1 << 39:016x}", f"CapEff:\t{0:016x}"
    assert done.stdout.splitlines() == [has, none, "None", has]


def test_who_has_no_cap_bpf_withholds_and_hands_on_nothing() -> None:
    program = "from sockmgr.kernel.process import *; withhold_bpf(); hand_on_bpf()"
    subprocess.run([sys.executable, "-c", program], check=True)
