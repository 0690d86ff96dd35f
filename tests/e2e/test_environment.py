"""What a generation takes from outside of the config, under load: files of variables."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.e2e.apps import EXAMPLES, App
from tests.e2e.commands import PLAIN, config
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, answered, unharmed, wait_in_log
from tests.helpers.load import Load

FROM_OUTSIDE = 'import os\nVERSION = os.environ["RELEASE"]'


def changes(manager: Manager) -> list[str]:
    done = manager.run("check", "-c", str(manager.config))
    assert done.code == 0, done.stdout
    return [change["text"] for change in done.answer["changes"]]


def test_a_file_of_variables_is_read_by_each_reload_and_a_bad_one_changes_nothing(
    tmp_path: Path,
) -> None:
    app, file = App("plain", tmp_path), tmp_path / ".env"
    app.deploy_code(FROM_OUTSIDE)
    file.write_text("export RELEASE=one\nTOKEN='s3cret'\n")
    text = config(app, PLAIN).replace("workers = 2", 'env_file = ".env"\nworkers = "${WORKERS:-2}"')
    with Manager(tmp_path, text) as manager, Load(manager.target(), LIGHT) as load:
        answered(load, "one")
        assert changes(manager) == []
        file.write_text('RELEASE="two"\nTOKEN=0ther\nWORKERS=3\n')
        assert changes(manager) == [
            "~ service.web.workers (WORKERS): needs no new workers",
            "! service.web.env (RELEASE, TOKEN, WORKERS): rolling reload",
        ]
        assert manager.reload().code == 0
        answered(load, "two")
        wait_for(lambda: len(manager.workers()) == 3, "three workers and no old ones")
        for bad in (b"RELEASE=${RELEASE}", b"RELEASE=\xff", b"A=" + b"x" * (1 << 20)):
            file.write_bytes(bad)
            with unharmed(manager):
                done = manager.reload()
            assert done.code == 2, done.stdout + done.stderr
            assert f"{file}" in done.stdout + done.stderr
        file.unlink()
        file.mkdir()
        with unharmed(manager):
            assert manager.reload().code == 2
        shutil.rmtree(file)
        with unharmed(manager):
            assert manager.reload().code == 2
        assert manager.say("status", "-c", str(manager.config)).code == 0
        assert manager.run("rollback", "web").code == 0  # as it was resolved then
        answered(load, "one")
        result = load.stop()
        assert not result.failed, result.failures()
        told = manager.log + manager.say("status").stdout
        assert "s3cret" not in told
        assert "0ther" not in told


class Releases:
    """Releases that differ by a package in their own environments, and the link to the newest."""

    def __init__(self, parent: Path) -> None:
        self.parent, self.current = parent, parent / "current"

    def directory(self, version: str) -> Path:
        return self.parent / "releases" / version

    def deploy(self, version: str) -> Path:
        """Make a release with an environment of its own; return that."""
        there, venv = self.directory(version), self.directory(version) / ".venv"
        shutil.copytree(EXAMPLES / "plain", there)
        (there / "version.py").write_text(
            "import os, packaged\nVERSION = f\"{packaged.NAME}-{os.environ['COLOUR']}\"\n"
        )
        # What `python -m venv` makes, without pip.
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(Path(sys.executable).resolve())
        (venv / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
        kind = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = venv / "lib" / kind / "site-packages"
        packages.mkdir(parents=True)
        (packages / "packaged.py").write_text(f'NAME = "{version}"\n')
        link = self.parent / "new"
        link.symlink_to(there)
        link.rename(self.current)
        return venv


def test_a_release_runs_in_its_own_environment_whatever_the_manager_was_started_from(
    tmp_path: Path,
) -> None:
    site = Releases(tmp_path)
    first, file = site.deploy("1"), tmp_path / "shop.env"
    file.write_text("COLOUR=blue")
    text = """
[listen]
http = "tcp://127.0.0.1:${PORT:-0}"

[service.web]
command = ["python", "accept_loop.py"]
workers = 2
cwd = "${SITE}/current"
env_file = "shop.env"
rollout.probation = 0.2
"""
    environ = {
        "SITE": str(tmp_path), "VIRTUAL_ENV": str(first), "PATH": f"{first}/bin:/usr/bin:/bin",
    }  # fmt: skip
    with Manager(tmp_path, text, env=environ) as manager, Load(manager.target(), LIGHT) as load:
        answered(load, "1-blue")
        site.deploy("2")
        file.write_text("COLOUR=green")
        assert manager.reload().code == 0
        answered(load, "2-green")
        shutil.rmtree(site.directory("1"))
        third = site.deploy("3")
        shutil.rmtree(third / "bin")  # one that was not built: neither of the others is to serve
        with unharmed(manager):
            done = manager.reload()
        assert done.code == 2, done.stdout
        assert f"{third}/bin/python is not there, or not for us to run" in done.stdout + done.stderr
        site.deploy("4")
        assert manager.reload().code == 0
        answered(load, "4-green")
        assert manager.run("rollback", "web").code == 0
        answered(load, "2-green")
        file.write_text("COLOUR=red")
        manager.kill9()
        manager.start()  # what changed while nobody looked is a change, too
        wait_in_log(manager, "committed", "generation=5", timeout=60)
        answered(load, "4-red")
        result = load.stop()
        assert not result.failed, result.failures()
        wait_for(lambda: {one["generation"] for one in manager.workers()} == {5}, "the last ones")
        for worker in manager.workers():
            given = Path(f"/proc/{worker['pid']}/environ").read_bytes().split(b"\0")
            assert f"VIRTUAL_ENV={site.directory('4')}/.venv".encode() in given
