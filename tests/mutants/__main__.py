"""Try mutants: `python -m tests.mutants [PART OF A NAME]`; exits with 1 if one survives.

The edits of tests/fleet are tried by transcripts, examples and properties, those of
tests/simulation by random schedules, and those of shell.py in a copy of the tree, by the tests that
are named there.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fleet import mutants as fleet
from tests.fleet.mutants import Mutant, mutated
from tests.mutants import shell
from tests.simulation import mutants as simulation

ROOT = Path(__file__).parents[2]
_TIMES = itertools.count(1)  # seconds, as bytecode knows the time of its source
ENDLESS = 300  # seconds of processor time, of which each of the others needs a few
WITHIN = 4800  # schedules: a mutant that lives so long lives
PYTEST = ("-m", "pytest", "-qx", "--no-header", "--tb=no", "-p", "no:cacheprovider", "--timeout=60")


class Trees:
    """Copies of what is tested, one for each thread, which are left as they were."""

    def __init__(self, place: Path) -> None:
        self._place, self._mine = place, threading.local()

    def mine(self) -> Path:
        """Return the copy of this thread."""
        if not hasattr(self._mine, "path"):
            path = Path(tempfile.mkdtemp(dir=self._place))
            for name in ("sockmgr", "tests", "examples"):
                shutil.copytree(ROOT / name, path / name)  # with its bytecode
            shutil.copy(ROOT / "pyproject.toml", path)
            self._mine.path = path
        found: Path = self._mine.path
        return found


def _run(arguments: list[str], where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python; an edit by which something goes on for ever is ended by SIGXCPU."""
    environment = {
        **os.environ, "PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }  # fmt: skip
    command = ["prlimit", f"--cpu={ENDLESS}:{ENDLESS + 9}", sys.executable, *arguments]
    return subprocess.run(
        command, cwd=where, env=environment, capture_output=True, text=True, check=False
    )


def of_fleet(mutant: Mutant) -> str:
    """Return what noticed this edit, "" if nothing did."""
    done = _run(["-m", "tests.fleet.mutants", mutant.name])
    if done.returncode == -signal.SIGXCPU:
        return "no end"
    last = (done.stdout.splitlines() or [""])[-1]
    return last if done.returncode == 1 and last != "green" else ""


def of_simulation(mutant: Mutant) -> str:
    """Return what noticed this edit, "" if nothing did."""
    first = str(simulation.SOON.get(mutant.name, 0))
    run = ["-m", "tests.simulation", str(WITHIN), "--first", first, "--mutant", mutant.name]
    return "simulation" if "breaks a promise" in _run(run).stdout else ""


def of_shell(mutant: Mutant, tree: Path) -> str:
    """Return what noticed this edit, "" if nothing did."""
    path = tree / f"{mutant.module.replace('.', '/')}.py"
    before = path.read_text()
    _write(path, mutated(mutant))
    try:
        for tests in shell.TESTS[mutant.module]:
            # 1: a test fails. Anything else would be a defect of the edit.
            if _run([*PYTEST, f"tests/{tests}"], tree).returncode == 1:
                return tests
    finally:
        _write(path, before)
    return ""


def _write(path: Path, text: str) -> None:
    """Write a source so that no bytecode of another one of its size is taken for its own."""
    path.write_text(text)
    written = next(_TIMES)
    os.utime(path, (written, written))


def attempts(part: str, trees: Trees) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant whose name has this part, and what noticed it."""

    def attempt(mutant: Mutant) -> tuple[Mutant, str]:
        if mutant in shell.MUTANTS:
            return mutant, of_shell(mutant, trees.mine())
        return mutant, of_fleet(mutant) if mutant in fleet.MUTANTS else of_simulation(mutant)

    every = (*shell.MUTANTS, *fleet.MUTANTS, *simulation.MUTANTS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(attempt, [mutant for mutant in every if part in mutant.name])


def main() -> int:
    """Try all that the command line names; what is not edited must be green the same way."""
    arguments = argparse.ArgumentParser(prog="python -m tests.mutants")
    arguments.add_argument("part", nargs="?", default="")
    part, began = arguments.parse_args().part, time.monotonic()
    survivors: list[str] = []
    number = 0
    with tempfile.TemporaryDirectory(prefix="sockmgr-mutants-") as place:
        trees = Trees(Path(place))
        if not part:
            suite = sorted({f"tests/{each}" for tests in shell.TESTS.values() for each in tests})
            done = _run([*PYTEST, *suite], trees.mine())
            assert done.returncode == 0, f"without an edit the tests fail:\n{done.stdout}"
            done = _run(["-m", "tests.fleet.mutants"])
            assert done.stdout.endswith("green\n"), f"without an edit they fail: {done.stdout}"
        for mutant, noticed in attempts(part, trees):
            number += 1
            print(f"{'killed' if noticed else 'SURVIVED':8} {mutant.name}: {noticed}", flush=True)
            survivors += () if noticed else (mutant.name,)
    print(f"{number} mutants in {time.monotonic() - began:.0f} s, {len(survivors)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
