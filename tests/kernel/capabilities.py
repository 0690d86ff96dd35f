"""Become an ordinary user who has one capability (capabilities(7)); for a process of its own."""

from __future__ import annotations

import ctypes
import os

NOBODY = 65534
CAP_CHOWN, CAP_BPF = 0, 39
_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _RAISE = 8, 47, 2
_VERSION_3 = 0x20080522


def become_nobody(capability: int, *, ambient: bool = False) -> None:
    """Change to nobody, and keep this capability only; `ambient`: for what we start, too."""
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
