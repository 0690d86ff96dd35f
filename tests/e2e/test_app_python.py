"""`python`: an application in an environment of its own, with preload, through a reload."""

from __future__ import annotations

import sysconfig
import venv
from pathlib import Path

from tests.e2e.apps import ROOT, App
from tests.e2e.harness import Manager
from tests.e2e.preloading import LOAD, config
from tests.e2e.programs.release import answered
from tests.helpers.load import Load


def environment(folder: Path) -> None:
    """Make a virtual environment that has the runtime, and one module that we have not."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "sockmgr").symlink_to(ROOT / "sockmgr")
    (site / "uvicorn").symlink_to(Path(sysconfig.get_path("purelib")) / "uvicorn")
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (site / "of_its_own.py").write_text("import sys\nHOME = sys.prefix\n")


def test_an_app_is_preloaded_by_its_own_interpreter_and_a_reload_loses_nothing(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    environment(app.directory / ".venv")
    app.deploy_code("from of_its_own import HOME as VERSION")
    text = config(app, more='python = ".venv/bin/python"')
    with Manager(tmp_path, text) as manager, Load(manager.target(), LOAD) as load:
        answered(load, str(app.directory / ".venv"))
        app.deploy("2")
        done = manager.reload()
        assert done.code == 0, done.stdout
        answered(load, "2")
        app.deploy_broken()
        done = manager.say("reload")
        assert done.code == 1
        assert "a_module_that_nobody_installed" in done.stdout
        assert f"{app.directory}/.venv/bin/python looked for it" in done.stdout
        assert not load.stop().failed
