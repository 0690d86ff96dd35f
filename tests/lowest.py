"""`make test-lowest`: tests with the oldest dependencies that are allowed, by each Python here.

Of a version without a wheel for a Python, the first later one that has it is taken.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import tomli
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
# What can depend on them: click and rich in verbs, msgspec in the interface and in states, tomli in
# configs, watchfiles, prometheus-client, uvicorn in the runtime. The rest is our own code alone.
TESTS = (
    "api", "cli", "client", "config", "dev", "fleet/test_history.py", "fleet/test_snapshot.py",
    "metrics", "packaging/test_man.py", "packaging/test_wheel.py", "top",
    "worker/test_asgi_table.py", "worker/test_drain.py", "worker/test_figures.py",
    "worker/test_moves.py", "worker/test_runtime.py", "worker/test_slow_clients.py",
    "worker/test_streams.py", "worker/test_tls.py", "worker/test_tracking.py",
    "worker/test_wsgi.py", "e2e/test_app.py", "e2e/test_metrics.py",
)  # fmt: skip
# The servers that stand in their own lower bounds, what is only there as source, and checkers.
NOT_INSTALLED = (
    "uvicorn", "zttp", "systemd-python", "mypy", "ruff", "import-linter", "types-psutil",
)  # fmt: skip
# The oldest uvicorn does not know zttp; before 2.5, tomli takes minutes for a key of 250 000 parts.
LEFT_OUT = (
    "-k", "not zttp", "--deselect",
    "tests/cli/test_init.py::test_no_directory_takes_more_time_or_memory_than_any_project_needs"
    "[keys of TOML]",
)  # fmt: skip


def pythons() -> Iterator[tuple[str, str]]:
    """Yield the version and the path of each Python that is here and runs."""
    for version in VERSIONS:
        for found in filter(None, (shutil.which(f"python{version}"), *_of_pyenv(version))):
            if subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
                yield version, found
                break


def _of_pyenv(version: str) -> Sequence[str]:
    return sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")))


def environment(version: str, python: str) -> Path:
    """Return a virtual environment with the oldest dependencies, and what tests need."""
    venv = ROOT / "build" / "lowest" / version
    uv(venv.parent, "venv", "--clear", "--seed", f"--python={python}", str(venv))
    install = ("pip", "install", f"--python={venv}/bin/python", "--only-binary=:all:")
    oldest = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["asgi"]]
    uv(venv, *install, "--resolution=lowest-direct", *oldest)
    kept = venv / "constraints.txt"
    listed = uv(venv, "pip", "freeze", f"--python={venv}/bin/python")
    kept.write_text(listed)
    print(f"\nPython {version}: {', '.join(listed.split())}", flush=True)
    more = PROJECT["optional-dependencies"]["test"]
    wanted = [each for each in more if Requirement(each).name not in NOT_INSTALLED]
    uv(venv, *install, f"--constraint={kept}", *wanted)
    # The package itself comes from the checkout: tests look for what stands beside it there.
    uv(venv, "pip", "install", f"--python={venv}/bin/python", "--no-deps", "--editable", str(ROOT))
    return venv


def uv(cwd: Path, *argv: str) -> str:
    """Run uv quietly; return what it prints."""
    cwd.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("uv")
    done = subprocess.run([program, "-q", *argv], cwd=cwd, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def main(words: Sequence[str]) -> int:
    """Run these tests, or TESTS, by each Python; 0 only if all of them passed."""
    tests = list(words) or [f"tests/{each}" for each in TESTS]
    failed = []
    for version, python in pythons():
        venv = environment(version, python)
        pytest = (f"{venv}/bin/python", "-m", "pytest", "-q", "-n", "2", *LEFT_OUT)
        if subprocess.run([*pytest, *tests], cwd=ROOT, check=False).returncode != 0:
            failed.append(version)
    print(f"failed with Python {', '.join(failed)}" if failed else "passed with each of them")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
