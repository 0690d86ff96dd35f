"""Who speaks to systemd: python-systemd, or we ourselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.systemd import protocol
from tests.helpers.python_systemd import hidden_python_systemd


@pytest.fixture(params=["python-systemd", "ourselves"])
def speaker(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Have the test, and processes that it starts, speak so."""
    if request.param == "ourselves":
        for name in ("systemd", "systemd.daemon", "systemd.journal"):
            monkeypatch.setitem(sys.modules, name, None)  # has an import fail
        monkeypatch.setenv("PYTHONPATH", str(hidden_python_systemd(tmp_path)))
    else:
        pytest.importorskip("systemd.daemon", reason="python-systemd is not installed")
    protocol._python_systemd.cache_clear()
    yield request.param
    protocol._python_systemd.cache_clear()
