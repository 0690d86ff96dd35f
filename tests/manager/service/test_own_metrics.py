"""The directory for metrics of workers: who has one, whose it is, what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from sockmgr.config.spec import Spec
from sockmgr.errors import SpawnError
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.service import own_metrics
from sockmgr.manager.service.own_metrics import OwnMetrics
from sockmgr.manager.workers.family import Family

SPEC = Spec(
    service="web", argv=("x",), executable="/x", cwd="/gone", prometheus_multiproc=True
)  # fmt: skip


class Watched(Family):
    """Counts the processes that were started, and tells when none runs any more."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.empty = 0, asyncio.Event()

    def join(self, pid: int) -> None:
        super().join(pid)
        self.started += 1

    def part(self, pid: int) -> None:
        super().part(pid)
        asyncio.get_running_loop().call_soon(lambda: self.known or self.empty.set())


def metrics(tmp_path: Path, context: Any = None, name: str = "web") -> OwnMetrics:
    return OwnMetrics(name, context, lambda: tmp_path / "shop.notify")


def test_only_a_service_that_asks_for_it_has_a_directory(tmp_path: Path) -> None:
    found = metrics(tmp_path)
    assert found.directory(Spec(service="web", argv=("x",), executable="/x", cwd="/")) == ""
    assert list(tmp_path.iterdir()) == []
    assert found.directory(SPEC) == str(tmp_path / "shop.metrics" / "web")


def test_workers_of_any_user_reach_it_whatever_our_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        directory = Path(metrics(tmp_path).directory(SPEC))
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_file_in_its_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "shop.metrics").touch()
    with pytest.raises(SpawnError, match=r"cannot make .*shop.metrics/web, for its metrics: "):
        metrics(tmp_path).directory(SPEC)


def test_the_directory_ends_with_its_service_and_that_of_another_stays(tmp_path: Path) -> None:
    web, back = metrics(tmp_path), metrics(tmp_path, name="back")
    (Path(web.directory(SPEC)) / "counter_7.db").touch()
    back.directory(SPEC)
    web.close()
    assert [path.name for path in (tmp_path / "shop.metrics").iterdir()] == ["back"]
    back.close()
    back.close()  # nor does it matter if it has gone
    assert list(tmp_path.iterdir()) == []


def test_however_many_workers_end_at_once_two_runs_do_and_a_failure_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> int:
        loop, family = asyncio.get_running_loop(), Watched()
        context: Any = SimpleNamespace(sink=Sink(), loop=loop, family=family)
        own = metrics(tmp_path, context)  # whose directory nobody has made, so that both fail
        for _ in range(100):
            own.merge(SPEC)
        await asyncio.wait_for(family.empty.wait(), 60)
        own.close()
        return family.started

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(run()) == 2
    assert caplog.text.count("metrics of workers not merged") == 2


def test_directories_in_it_are_not_entered_however_deep_and_what_stays_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web = metrics(tmp_path)
    directory = Path(web.directory(SPEC))
    (directory / "counter_7.db").touch()
    here = os.open(directory, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    try:
        web.close()
        [left] = (tmp_path / "shop.metrics").iterdir()
        assert [path.name for path in left.iterdir()] == ["d"]
        assert [
            record.getMessage() for record in caplog.records if str(left) in record.getMessage()
        ]
        assert Path(web.directory(SPEC)) == directory
        assert list(directory.iterdir()) == []
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "shop.metrics"], check=True)


def test_so_many_files_are_removed_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_metrics, "REMOVED_MAX", 2)
    web = metrics(tmp_path)
    for number in range(3):
        (Path(web.directory(SPEC)) / f"counter_{number}.db").touch()
    web.close()
    [left] = (tmp_path / "shop.metrics").iterdir()
    assert len(list(left.iterdir())) == 1
    assert caplog.text.count("metrics of workers not removed") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_what_another_user_has_left_is_not_taken_over(tmp_path: Path) -> None:
    web, victim = metrics(tmp_path), tmp_path / "victim"
    victim.write_text("as it was")
    nobody = msgspec.structs.replace(SPEC, user="65534")
    directory = Path(web.directory(nobody))
    assert directory.stat().st_uid == 65534
    (directory / "counter_7.db").touch()
    assert Path(web.directory(nobody)) == directory
    assert [path.name for path in directory.iterdir()] == ["counter_7.db"]
    (directory / ".counter").symlink_to(victim)
    assert Path(web.directory(SPEC)) == directory
    assert directory.stat().st_uid == 0
    assert list(directory.iterdir()) == []
    assert [path.name for path in directory.parent.iterdir()] == ["web"]
    assert victim.read_text() == "as it was"
