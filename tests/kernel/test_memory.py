"""Free memory and what processes use, read from the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

from sockmgr.kernel import memory

MEGABYTE = 1 << 20


def test_what_is_available_is_no_more_than_the_machine_has() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = memory.available()
    assert free is not None
    assert 0 < free <= total


def test_a_process_that_holds_64_megabytes_uses_them() -> None:
    program = "import sys; held = bytearray(b'x') * (64 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 64 * MEGABYTE <= memory.used([process.pid]) < 100 * MEGABYTE


def test_a_process_that_is_gone_uses_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert memory.used([process.pid]) == 0
