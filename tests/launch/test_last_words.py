"""What a program says that may not compile at run time is understood; what others say is not."""

from __future__ import annotations

import pytest

from sockmgr.launch.last_words import is_refused_code


@pytest.mark.parametrize(
    "line",
    [
        "MemoryError: Cannot allocate write+execute memory for ffi.callback().",
        "PermissionError: [Errno 13] cannot allocate executable memory.",
        "# Check failed: 12 == (*__errno_location ()).",
        "Couldn't make JIT page (0x7f7dec26c000) executable, errno: Permission denied",
        "mprotect() failed [13] Permission denied",
    ],
)
def test_memory_that_must_not_be_executed_is_recognised(line: str) -> None:
    assert is_refused_code(["Traceback (most recent call last):", line])


def test_other_trouble_with_memory_is_not() -> None:
    assert not is_refused_code(["MemoryError", "Cannot allocate memory", "Permission denied"])
