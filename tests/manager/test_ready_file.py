"""The file that is there while the manager wants new traffic."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sockmgr.manager.ready_file import ReadyFile


def test_it_is_there_while_the_manager_is_ready_and_one_of_a_predecessor_goes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "up"
    path.touch()
    file = ReadyFile()
    for ready in (False, True, True, False):
        file.show(str(path), ready=ready)
        assert path.exists() == ready


def test_another_path_of_a_reload_takes_it_along(tmp_path: Path) -> None:
    file = ReadyFile()
    file.show(str(tmp_path / "a"), ready=True)
    file.show(str(tmp_path / "b"), ready=True)
    assert [each.name for each in tmp_path.iterdir()] == ["b"]
    file.show("", ready=True)
    assert not list(tmp_path.iterdir())


def test_what_is_not_an_empty_file_stays_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, link = tmp_path / "data", tmp_path / "link"
    data.write_text("of somebody else")
    link.symlink_to(data)
    for path in (data, link, tmp_path):
        ReadyFile().show(str(path), ready=False)
        assert path.exists()
    os.mkfifo(tmp_path / "fifo")
    ReadyFile().show(str(tmp_path / "fifo"), ready=True)
    ReadyFile().show(str(link), ready=True)
    ReadyFile().show(str(tmp_path / "missing" / "up"), ready=True)
    assert len(caplog.records) == 6
    assert data.read_text() == "of somebody else"
