"""What the tests of the doctor share: a directory with a config, and no manager that is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.diagnosis import CONFIG


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a config in which nothing is wrong."""
    monkeypatch.setenv("SOCKMGR_CONTROL", str(tmp_path / "nobody.sock"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sockmgr.toml"
    path.write_text(CONFIG)
    return path
