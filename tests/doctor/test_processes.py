"""What is read in /proc of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from sockmgr.doctor import processes
from tests.e2e.harness import wait_for

FORKS = "import os, signal; os.fork(); print(flush=True); signal.pause()"
STARTS = "import subprocess; print(flush=True); subprocess.run(['sleep', '60'])"


@pytest.mark.parametrize(("program", "found"), [(FORKS, []), (STARTS, ["sleep"])])
def test_a_child_that_runs_another_program_is_told_from_a_fork(
    program: str, found: Sequence[str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        try:
            if found:
                wait_for(lambda: processes.successors(parent.pid), "the program to be started")
            assert [processes.program(pid) for pid in processes.successors(parent.pid)] == found
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_the_signals_of_a_process_are_told_as_it_set_them() -> None:
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    try:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        found = processes.signals(os.getpid())
        assert found is not None
        assert found.ignores(signal.SIGUSR1)
        assert not found.dies_of(signal.SIGUSR1)
        assert found.dies_of(signal.SIGUSR2)
        signal.signal(signal.SIGUSR2, lambda *_: None)
        found = processes.signals(os.getpid())
        assert found is not None
        assert not found.dies_of(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])


def test_of_a_process_that_is_gone_nothing_is_told() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert processes.signals(process.pid) is None
    assert processes.environ(process.pid) == {}
    assert not processes.may_look_into(process.pid)
    assert processes.open_files_limit(process.pid) is None
