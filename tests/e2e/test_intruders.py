"""Another user, and a worker of another user, try what harms a manager: nothing of it works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, Release, answered, serving
from tests.helpers.load import Load

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
PROGRAM = Path(__file__).parent / "programs" / "intruder.py"
SYSTEM_PYTHON = Path("/usr/bin/python3")  # ours may be in a directory that is closed to others
NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may pass through, as that of a manager of root is."""
    directory = Path(tempfile.mkdtemp(prefix="sockmgr-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


def test_another_user_harms_neither_the_manager_nor_what_it_has_started(place: Path) -> None:
    release = Release(place)
    with Manager(place, release.config()) as manager, Load(manager.target(), LIGHT) as load:
        generation, workers = serving(manager)
        pids = map(str, (manager.pid, manager.keeper, *workers))
        argv = [sys.executable, "-I", "-S", str(PROGRAM), str(NOBODY), str(manager.control), *pids]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        found = json.loads(done.stdout)
        assert len(found) == 12 + 3 * 10
        assert {name: each for name, each in found.items() if each != "refused"} == {}
        assert serving(manager) == (generation, workers)
        release.deploy("2")
        assert manager.reload().code == 0
        answered(load, "2", count=3)
        manager.kill9()
        manager.start()
        manager.wait_serving()
        answered(load, "2", count=3)
    assert not load.result.failed, load.result.failures()


@pytest.mark.skipif(not SYSTEM_PYTHON.exists(), reason="needs a Python that others can run")
def test_a_worker_of_another_user_has_its_listener_and_nothing_else(place: Path) -> None:
    loot = place / "loot"
    loot.mkdir()
    os.chown(loot, NOBODY, NOBODY)
    program = shutil.copy(PROGRAM, place)
    command = [str(SYSTEM_PYTHON), "-I", "-S", program, "serve", str(place / "control.sock")]
    service = (
        f"[service.web]\ncommand = {json.dumps([*command, str(loot)])}\n"
        f'cwd = "/"\nuser = "{NOBODY}"\nlisten = ["http"]\n'
    )
    with Manager(place, f'[listen]\nhttp = "tcp://127.0.0.1:0"\n{service}') as manager:
        wait_for((loot / "found").exists, "what the worker could get")
        found = json.loads((loot / "found").read_text())
        assert found.pop("descriptors") == [0, 1, 2, 3]
        assert found.pop("rights") == ["0" * 16] * 2
        assert len(found) == 12 + 10 + 1
        assert {name: each for name, each in found.items() if each != "refused"} == {}
        assert manager.reload().code == 0
