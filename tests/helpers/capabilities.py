"""May we use bpf(2), and how does a process become a user who has one capability only."""

from __future__ import annotations

import ctypes
import os

import pytest

from sockmgr.kernel.steering import bpf

NOBODY = 65534
CAP_CHOWN, CAP_BPF = 0, 39
_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _RAISE = 8, 47, 2
_VERSION_3 = 0x20080522


def may_use_bpf() -> bool:
    """Tell it by a map alone: where that can be had, a program of ours must load as well."""
    try:
        os.close(bpf.create_map(bpf.ARRAY, value_size=8, entries=1))
    except PermissionError:
        return False
    return True


needs_bpf = pytest.mark.skipif(not may_use_bpf(), reason="needs CAP_BPF")


def become_nobody(capability: int, *, ambient: bool = False) -> None:
    """Change to nobody, and keep this capability only (capabilities(7)).

    For a process of its own. `ambient`: for what it starts, too.
    """
    libc = ctypes.CDLL(None)
    assert libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    word, bit = divmod(capability, 32)
    data = (ctypes.c_uint32 * 6)()  # two words, each of effective, permitted and inheritable ones
    data[3 * word : 3 * word + 3] = [1 << bit] * 3
    assert libc.capset((ctypes.c_uint32 * 2)(_VERSION_3, 0), data) == 0
    if ambient:
        assert libc.prctl(_PR_CAP_AMBIENT, _RAISE, capability, 0, 0) == 0
