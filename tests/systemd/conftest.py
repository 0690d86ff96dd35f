"""A machine with a real systemd for each test that asks for one."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import pytest

from tests.systemd.machine import Machine, why_impossible


@functools.cache
def _why_not() -> str:
    return why_impossible()


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Boot a machine. Where that is impossible the test is skipped, but for root in CI."""
    if why := _why_not():
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(f"no systemd can be booted here: {why}")
        pytest.skip(f"no systemd can be booted here: {why}")
    with Machine() as booted:
        yield booted
        # Shown if the test has failed.
        print(booted.run("journalctl", "--output=short-precise", "--lines=300", check=False).stdout)
