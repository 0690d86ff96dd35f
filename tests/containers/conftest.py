"""Containers can be made by root only."""

from __future__ import annotations

import os

import pytest

from tests.systemd.machine import why_impossible


@pytest.fixture(scope="session", autouse=True)
def _namespaces() -> None:
    """Skip where no namespaces can be had, but not for root in CI."""
    if why := why_impossible():
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(f"no container can be made here: {why}")
        pytest.skip(f"no container can be made here: {why}")
