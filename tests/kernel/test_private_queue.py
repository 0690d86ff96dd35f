"""Who is not the manager does not come to a queue that is not fed: tests.private_queue has how."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another host")
def test_nobody_else_comes_to_a_queue_that_is_not_fed_from_another_host_or_as_another_user() -> (
    None
):
    done = subprocess.run(
        [sys.executable, "-m", "tests.private_queue", "--short"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
