"""What is no regular file is not waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sockmgr.kernel.regular import first_bytes, open_regular


def test_a_fifo_and_a_device_are_refused_without_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/null", tmp_path):
        with pytest.raises(OSError, match="no regular file"):
            open_regular(path)


def test_the_beginning_of_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"#!/bin/sh\n")
    assert first_bytes(tmp_path / "file", 4) == b"#!/b"
