"""Free memory and what processes use, read from the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
    assert memory.footprint([process.pid], 0) == 0


# A copy has all the pages of its parent, and none of its own.
COPIED = """
import os, sys
held = bytearray(b'x') * (64 << 20)
if os.fork() == 0:
    print(os.getpid(), flush=True)
sys.stdin.read()
"""


def test_memory_that_a_copy_shares_counts_once_or_where_it_cannot_be_seen_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", COPIED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        both = [process.pid, int(process.stdout.readline())]
        assert 64 * MEGABYTE <= memory.footprint(both, 0) < 100 * MEGABYTE
        rss = memory.footprint(both, 1 << 40)
        assert rss >= 128 * MEGABYTE, "what is not above the limit is not looked at closely"
        monkeypatch.setattr(memory, "_field", lambda *_: None)
        assert memory.footprint(both, 0) >= 128 * MEGABYTE
