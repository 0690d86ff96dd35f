"""Wait until a program that was replaced runs on no processor any more, where it may choose."""

from __future__ import annotations

import platform
import time

_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}


def settle() -> None:
    """Return when no processor runs a program any more that was replaced before. Blocks ~10 ms.

    membarrier(2), MEMBARRIER_CMD_GLOBAL, waits for an RCU grace period. Where it is missing, 50 ms
    are far longer than one.
    """
    import ctypes  # noqa: PLC0415 - 1 MB, which a manager without steered listeners saves

    number = _MEMBARRIER.get(platform.machine())
    if number is None or ctypes.CDLL(None).syscall(number, 1, 0, 0) != 0:
        time.sleep(0.05)
