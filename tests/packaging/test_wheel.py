"""An installed wheel: what it brings is where pip puts it, and where man and the shells look."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from sockmgr import __version__
from sockmgr.config.schema import schema
from tests.helpers.pages import ROOT


def run(*argv: object, **variables: str) -> str:
    env = os.environ | variables
    return subprocess.run(
        list(map(str, argv)), capture_output=True, text=True, check=True, env=env, cwd="/"
    ).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel; return a virtual environment with it, and with the packages of ours."""
    directory = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    (wheel,) = directory.glob("*.whl")
    venv = directory / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    run(
        sys.executable, "-m", "pip", f"--python={venv}/bin/python", "install", "--quiet",
        "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check", wheel,
    )  # fmt: skip
    (packages,) = venv.glob("lib/python*/site-packages")
    # Its own package comes first; an editable one of ours is a hook that this line does not run.
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


def test_a_wheel_is_built_also_where_only_a_path_shows_what_that_requires(tmp_path: Path) -> None:
    # So does pip, which builds with the Python of the environment that it installs into.
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare")
    subprocess.run(
        [tmp_path / "bare/bin/python", "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")},
        capture_output=True, check=True,
    )  # fmt: skip
    assert list(tmp_path.glob("*.whl"))


def test_the_program_is_that_of_the_wheel(installed: Path) -> None:
    assert run(installed / "bin/sockmgr", "--version") == f"sockmgr, version {__version__}\n"
    where = run(installed / "bin/python", "-c", "import sockmgr; print(sockmgr.__file__)")
    assert where.startswith(str(installed))


@pytest.mark.parametrize("name", ["systemd", "prometheus", "grafana"])
def test_units_alerts_and_dashboard_are_those_of_contrib(installed: Path, name: str) -> None:
    ours = ROOT / "contrib" / name
    wanted = {path.relative_to(ours): path for path in ours.rglob("*") if path.is_file()}
    there = installed / "share/sockmgr" / name
    found = {path.relative_to(there): path for path in there.rglob("*") if path.is_file()}
    assert {name: path.read_text() for name, path in found.items()} == {
        name: path.read_text() for name, path in wanted.items()
    }


def test_the_schema_is_that_of_the_config(installed: Path) -> None:
    text = (installed / "share/sockmgr/sockmgr.schema.json").read_text()
    assert json.loads(text) == schema()


def test_man_finds_the_pages_by_the_path_of_the_program(installed: Path) -> None:
    if shutil.which("man") is None:
        pytest.skip("there is no man")
    path = f"{installed}/bin:{os.environ['PATH']}"
    for page in ("sockmgr.1", "sockmgr-reload.1", "sockmgr.toml.5"):
        section, name = page[-1], page[:-2]
        found = run("man", "-w", section, name, PATH=path, MANPATH="").strip()
        assert found == f"{installed}/share/man/man{section}/{page}"


@pytest.mark.parametrize(
    ("shell", "file", "test"),
    [
        ("bash", "bash-completion/completions/sockmgr", 'source "$0"; complete -p sockmgr'),
        ("zsh", "zsh/site-functions/_sockmgr", 'head -n 1 "$0"'),
        ("fish", "fish/vendor_completions.d/sockmgr.fish", 'grep "complete.* sockmgr" "$0"'),
    ],
)
def test_completions_are_where_shells_look(
    installed: Path, shell: str, file: str, test: str
) -> None:
    path = installed / "share" / file
    assert path.read_text() == run(installed / "bin/sockmgr", "completions", shell)
    assert "sockmgr" in run("bash", "-c", test, path)


def test_the_wheel_has_the_licence_and_no_tests(installed: Path) -> None:
    (about,) = installed.glob("lib/python*/site-packages/sockmgr-*.dist-info")
    assert (about / "licenses/LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    record = (about / "RECORD").read_text()
    assert "tests/" not in record
    assert "__pycache__" not in record
