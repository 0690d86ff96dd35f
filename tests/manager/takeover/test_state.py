"""The two memfds of the state: whatever happens to one, the other is whole."""

from __future__ import annotations

import fcntl
import os

import pytest

from sockmgr.manager.takeover.state import StateMemory


def test_what_cannot_be_written_never_costs_the_state_that_is_whole() -> None:
    fds = [os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) for name in "ab"]
    memory = StateMemory(fds, serial=0)
    try:
        memory.write(b'{"first":1}')
        whole, latest = os.pread(memory.latest, 1000, 0), memory.latest
        fcntl.fcntl(({*fds} - {latest}).pop(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        for _ in range(2):
            with pytest.raises(PermissionError):
                memory.write(b'{"second":2}')
            assert memory.latest == latest
            assert os.pread(latest, 1000, 0) == whole
    finally:
        memory.close()
