"""The ways to install sockmgr, each in a Debian of its own, and docs/start.md by what it installed.

The machine has no network: what pip asks for is in a directory.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import tomli

from tests.packaging.roots import Debian, debian, install, needed, run
from tests.start_page import PAGE
from tests.systemd.machine import ROOT, Machine

# What the page is run with, and what each way begins with.
USED = ("curl", "make", "pipx", "procps", "python3-venv")
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*cache", ".hypothesis", "build", "dist")
Way = Callable[[Machine, str], str]


def ways(suite: str, deb: Path, wheels: Path) -> Iterator[tuple[str, str]]:
    """Install it in each way, and run the page; yield the way, and the last line of the page."""
    root = debian(suite, *USED)
    install(root, *needed(deb))
    fetch(root, wheels)
    for name, way in WAYS.items():
        with Debian(root) as machine:
            clone = Path(machine.shared, "clone")
            shutil.copytree(ROOT, clone, ignore=LEFT_OUT)
            shutil.copy(deb, machine.shared)
            shutil.copytree(wheels, machine.shared / "wheels")
            program = way(machine, str(clone))
            yield name, page(machine, str(clone), program, systemd=name != "pipx")


def page(machine: Machine, clone: str, program: str, *, systemd: bool) -> str:
    """Run docs/start.md by this program; return the last line that was printed."""
    argv = ["python3", "-m", "tests.start_page", "--sockmgr", program]
    argv += ["--systemd"] if systemd else []
    return inside(machine, clone, " ".join(argv)).splitlines()[-1]


def inside(machine: Machine, clone: str, script: str) -> str:
    """Run a script in the clone, with what pip needs; return what it prints."""
    before = (
        f"cd {clone} && export PIP_NO_INDEX=1 PIP_FIND_LINKS={machine.shared}/wheels HOME=/root"
    )
    return machine.run("bash", "-ec", f"{before}\n{script}", timeout=600).stdout


def fetch(root: Path, wheels: Path) -> None:
    """Fetch the wheels that pip needs, for the Python there, to install a clone and its `asgi`."""
    version = run(
        "chroot", root, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"
    )
    project = tomli.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["build-system"]["requires"],
        "editables",
    ]
    wanted += project["project"]["optional-dependencies"]["asgi"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--only-binary=:all:", f"--python-version={version.strip()}",
         *(f"--platform={each}" for each in PLATFORMS), f"--dest={wheels}",
         "pip", "setuptools", "wheel", *wanted],
        check=True,
    )  # fmt: skip


# --- The ways ------------------------------------------------------------------------------------


def with_server(machine: Machine, clone: str) -> None:
    """Install uvicorn for all: that of Debian 12 is too old for what the page does."""
    inside(
        machine, clone,
        "python3 -m venv /opt/uvicorn && /opt/uvicorn/bin/pip install uvicorn\n"
        "ln -sf /opt/uvicorn/bin/uvicorn /usr/local/bin/",
    )  # fmt: skip


def by_package(machine: Machine, clone: str) -> str:
    """The package of Debian. The server is no part of it."""
    with_server(machine, clone)
    (deb,) = machine.shared.glob("*.deb")
    machine.run("dpkg", "-i", str(deb), timeout=300)
    return "/usr/bin/sockmgr"


def by_pipx(machine: Machine, clone: str) -> str:
    """pipx, for one person's command line: systemd's service could not read it."""
    with_server(machine, clone)
    inside(machine, clone, "pipx install .")
    return "/root/.local/bin/sockmgr"


def by_page(machine: Machine, clone: str) -> str:
    """The commands that the page itself begins with."""
    commands = PAGE.read_text().partition("## Install\n")[2].partition("```\n")[2]
    inside(machine, clone, commands.partition("```")[0])
    return "/opt/sockmgr/bin/sockmgr"


def by_make(machine: Machine, clone: str) -> str:
    """The two commands of the README; what the first one says is to be typed is typed."""
    script = """\
make run >run.log 2>&1 &
until curl -sf http://127.0.0.1:8000/ >/dev/null; do sleep 0.2; done
grep '^    ' run.log >typed
bash -ex typed
.venv/bin/sockmgr stop -c examples/asgi/sockmgr.toml
wait
make demo
"""
    printed = inside(machine, clone, script)
    assert "generation 2 is serving: " in printed, printed
    return f"{clone}/.venv/bin/sockmgr"


WAYS: Mapping[str, Way] = {
    "the package": by_package,
    "pipx": by_pipx,
    "pip, as the page has it": by_page,
    "make run, make demo": by_make,
}
