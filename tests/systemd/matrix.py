"""`make test-systemd-matrix`: run tests/systemd on the machine's systemd and on others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.systemd.archive import Archive, ArchiveError
from tests.systemd.layers import layer, missing
from tests.systemd.machine import LAYER, ROOT, Machine, why_impossible


def booted(path: str) -> str:
    """Return which version PID 1 says it is when this layer is booted. Raises ArchiveError."""
    try:
        with Machine(path) as machine:
            told = machine.systemctl("show", "--value", "--property=Version").stdout.strip()
    except AssertionError as error:
        raise ArchiveError(f"it does not boot: {error}") from error
    if path and told not in (made := Path(path, "made").read_text()):
        raise ArchiveError(f"{told} runs, but the layer is {made}")
    return told


def run_tests(path: str) -> tuple[bool, str]:
    """Run the tests on this layer; return whether they passed, and their last line."""
    command = [sys.executable, "-m", "pytest", "-rs", "tests/systemd"]
    # CI: a machine that cannot be booted is a failure and no reason to skip.
    env = os.environ | {LAYER: path, "CI": "true"}
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env) as tests:
        assert tests.stdout
        for line in tests.stdout:
            print(line, end="", flush=True)
            last = line.strip(" =\n") or last
    return tests.returncode == 0, last


def attempt(wanted: int, archive: Archive) -> tuple[bool, str]:
    """Test one version, 0 being the machine's own; return whether it passed, and one line."""
    name = f"systemd {wanted}" if wanted else "this machine's systemd"
    try:
        path = str(layer(wanted, archive)) if wanted else ""
        version = booted(path)
    except ArchiveError as error:
        return False, f"{name}: {error}"
    print(f"\n{name} is {version}", flush=True)
    passed, last = run_tests(path)
    return passed, f"{name} is {version}: {last}"


def main(words: Sequence[str]) -> int:
    """Test the machine's own systemd and these; 0 only if all tests passed on all of them."""
    if why := missing() or why_impossible():
        print(f"the matrix cannot be run: {why}", file=sys.stderr)
        return 1
    with Archive() as archive:
        results = [attempt(wanted, archive) for wanted in (0, *map(int, words))]
    print()
    for passed, line in results:
        print(f"{'passed' if passed else 'FAILED'}  {line}")
    return 0 if all(passed for passed, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
