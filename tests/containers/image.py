"""`make test-image`: the steps of contrib/container/Dockerfile, and a container of what they make.

There need be no engine: debootstrap's minimum with Debian's Python stands in for the base image,
and the container is one of tests/containers/box. As root; pip gets its packages as it does here.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tomli

from tests.containers.box import Box, Kind
from tests.e2e.apps import ROOT
from tests.e2e.harness import wait_for

DOCKERFILE = ROOT / "contrib" / "container" / "Dockerfile"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
BUILD = ROOT / "build" / "image"
CONFIG = """\
stop_delay = "60s"

[listen]
http = "tcp://127.0.0.1:8000"

[service.web]
command = ["/usr/bin/python3", "/etc/sockmgr/worker.py"]
workers = "auto"
"""


@dataclass(slots=True)
class Stage:
    """The files of one stage, and the last of each instruction about how it runs."""

    root: Path
    says: dict[str, str] = field(default_factory=dict)


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, each with its words."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole)]


def main(suite: str) -> int:
    """Make the image on this release of Debian, and try it; an assertion ends it."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("this needs root and debootstrap", file=sys.stderr)
        return 1
    start = base(suite)
    stage = made(start, wheels(start))
    size = sum(f.stat().st_size for f in (stage.root / "opt").rglob("*") if f.is_file())
    print(f"{suite}: the image is made; /opt/sockmgr has {size / 1e6:.0f} MB", flush=True)
    tried(stage)
    print(f"{suite}: it serves, reloads, is healthy, and stops", flush=True)
    return 0


def base(suite: str) -> Path:
    """Return the directory of a small Debian with Python, made once."""
    root = BUILD / suite
    if not (root / "etc" / "made").exists():
        shutil.rmtree(root, ignore_errors=True)
        packages = "--include=python3,python3-venv"
        run("debootstrap", "--variant=minbase", packages, suite, str(root), MIRROR)
        (root / "etc" / "made").touch()
    return root


def wheels(root: Path) -> Path:
    """Return a directory with all that pip installs into an image with the Python of `root`."""
    told = [
        "chroot",
        str(root),
        "python3",
        "-c",
        "import sys; print('%d.%d' % sys.version_info[:2])",
    ]
    version = subprocess.run(told, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    there = BUILD / f"wheels-{version}"
    project = tomli.loads((ROOT / "pyproject.toml").read_text())
    needs = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    needs += project["project"]["optional-dependencies"]["asgi"]
    pip = [sys.executable, "-m", "pip", "download", "-q", "-d", str(there)]
    run(*pip, "--only-binary=:all:", f"--python-version={version}", *needs)
    return there


def made(start: Path, packages: Path) -> Stage:
    """Perform the instructions; return the last stage."""
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for word, rest in instructions(DOCKERFILE.read_text()):
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "last"
            root = BUILD / f"stage-{name}"
            shutil.rmtree(root, ignore_errors=True)
            run("cp", "-a", str(start), str(root))
            current = stages[name] = Stage(root)
        elif current is None:
            assert word == "ARG", word
        elif word == "COPY":
            copy(rest, current, stages)
        elif word == "RUN":
            in_stage(current, packages, rest)
        else:
            current.says[word] = rest
    return stages["last"]


def copy(words: str, stage: Stage, stages: dict[str, Stage]) -> None:
    *options, source, target = shlex.split(words)
    to = stage.root / target.lstrip("/")
    if options:
        (name,) = (option.removeprefix("--from=") for option in options)
        run("cp", "-a", str(stages[name].root / source.lstrip("/")), str(to))
    else:
        ignoring = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().split("\n")
        for kept in (line[1:] for line in ignoring if line.startswith("!")):
            (to / kept).parent.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", str(ROOT / kept), str(to / kept))
        for cache in to.rglob("__pycache__"):
            shutil.rmtree(cache)


def in_stage(stage: Stage, packages: Path, command: str) -> None:
    """Run a command in a stage, which sees the wheels."""
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/mnt", "DIR": str(packages), "IN": str(stage.root),
    }  # fmt: skip
    script = (
        'mount --bind "$DIR" "$IN/mnt" && mount -t proc proc "$IN/proc" '
        '&& exec chroot "$IN" sh -c "$0"'
    )
    subprocess.run(["unshare", "--mount", "sh", "-c", script, command], env=env, check=True)


def tried(stage: Stage) -> None:
    """Run the image as its last instructions say, as an engine would."""
    says = stage.says
    user, place = says["USER"], says["WORKDIR"]
    assert says["ENTRYPOINT"] + says["CMD"] == '["sockmgr"]["run"]'
    kind = Kind(
        rights=Kind().rights.replace("10001", user), rootfs=str(stage.root), place=place,
        python="/usr/bin/python3", program=("sockmgr",),
    )  # fmt: skip
    probe = json.loads(says["HEALTHCHECK"].partition(" CMD ")[2])
    with (
        tempfile.TemporaryDirectory(prefix="sockmgr-image-") as directory,
        Box(Path(directory, "etc"), CONFIG, kind) as box,
    ):
        with box.load("short:rate=50") as load:
            wait_for(lambda: load.result.answered > 20, "answers")
            assert box.sockmgr("reload").returncode == 0
            assert box.run(*probe).returncode == 0
            box.terminate()
            wait_for(lambda: box.sockmgr("health", "--ready").returncode == 1, "it to be unready")
        assert not load.result.failed, load.result.failures()
        box.terminate()
        assert box.wait() == 0


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:] or ["bookworm"]))
