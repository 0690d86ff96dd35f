"""Fuzz one target: `python -m tests.fuzz TARGET --runs N`; without a TARGET, each in turn.

With atheris, which sees which lines of sockmgr an input reaches; without it, or with --blind, by
edits of the corpus alone, which are many times as many a second. Exits with 1, and leaves the input
in build/fuzz, at an exception that is not ours, an input that takes seconds, or growth.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz.mutating import LONGEST, mutated

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "fuzz"
SLOWEST = 5.0  # seconds of processor time for one input
HANGS = 20  # seconds without an end of one input
GROWTH = 200_000  # blocks of memory that Python may have more at the end than after a tenth
KEPT = 2000  # inputs that later ones are made of
SHORT = 1024  # bytes of one that is kept, or as many as the longest of the corpus


class Watch:
    """Runs a target, and looks at what it costs; raises AssertionError at what it may not."""

    def __init__(self, name: str, target: Callable[[bytes], None], runs: int) -> None:
        self.name, self._target, self._runs = name, target, runs
        self._done, self._slowest, self._began = 0, 0.0, time.monotonic()
        self._before = (0, 0)

    def __call__(self, data: bytes) -> None:
        """Run one input."""
        began = time.process_time()
        self._target(data)
        took = time.process_time() - began
        self._slowest = max(took, self._slowest)
        assert took < SLOWEST, f"one input took {took:.1f} s"
        self._done += 1
        tenth = max(1, self._runs // 10)
        if self._done == tenth:
            self._before = _held()
        if self._done % tenth == 0:
            self._look()

    def _look(self) -> None:
        blocks, files = _held()
        grown, opened = blocks - self._before[0], files - self._before[1]
        print(
            f"{self.name}: {self._done} inputs in {time.monotonic() - self._began:.0f} s, the "
            f"slowest {self._slowest * 1000:.0f} ms, {grown:+} blocks, {opened:+} files",
            flush=True,
        )
        assert grown < GROWTH, "it grows"
        assert opened <= 0, "it leaves files open"


def _held() -> tuple[int, int]:
    gc.collect()
    return sys.getallocatedblocks(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def blindly(watch: Watch, start: Sequence[bytes], runs: int, seed: int) -> None:
    """Run the corpus, and then edits of it and of each other."""
    draw, pool = random.Random(seed), list(start)
    short = max(SHORT, *map(len, start))  # else nearly all grow to LONGEST, where edits are lost
    for number in range(runs):
        if number < len(start):
            data = start[number]
        else:  # half of them are one step from the corpus: what is far from it is seldom read whole
            data = mutated(draw, draw.choice(draw.choice((start, pool))), pool)
        signal.setitimer(signal.ITIMER_REAL, HANGS)
        try:
            watch(data)
        except BaseException:
            keep(watch.name, data)
            raise
        if len(data) > short:
            continue
        if len(pool) < KEPT:
            pool.append(data)
        elif number % 50 == 0:  # what was made of others may be odder than those
            pool[draw.randrange(len(start), KEPT)] = data
    signal.setitimer(signal.ITIMER_REAL, 0)


def _hang(_: int, __: object) -> None:
    raise AssertionError("it hangs")


def keep(name: str, data: bytes) -> None:
    """Leave an input that was found."""
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    print(f"{name}: see {path.relative_to(ROOT)}", file=sys.stderr)


def guided(name: str, runs: int, seed: int, seconds: int) -> None:
    """Have atheris choose; this process ends with it."""
    import atheris  # noqa: PLC0415 - it may be missing

    with atheris.instrument_imports(include=["sockmgr"]):
        from tests.fuzz.targets import TARGETS, corpus  # noqa: PLC0415 - to be instrumented

    start = corpus(name)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        if number % 2:
            return bytes(atheris.Mutate(data, most))
        return mutated(random.Random(number), data, start)[:most]

    place = BUILD / "corpus" / name
    place.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(start):
        (place / f"start-{number}").write_bytes(data)
    options = (
        f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={seed or 1}",
        f"-max_len={max(LONGEST, *map(len, start))}", f"-timeout={HANGS}",
        f"-artifact_prefix={BUILD}/{name}-", "-print_final_stats=1", "-verbosity=0",
    )  # fmt: skip
    watch = Watch(name, TARGETS[name], runs)
    atheris.Setup([sys.argv[0], *options, str(place)], watch, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    """Fuzz what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", nargs="?")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=0, help="with atheris, at most as long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blind", action="store_true", help="do without atheris")
    asked = parser.parse_args()
    if asked.target is None:
        names = sorted(path.name for path in Path(__file__).with_name("corpus").iterdir())
        argv = [sys.executable, "-m", "tests.fuzz", "--runs", str(asked.runs), "--seconds",
                str(asked.seconds), "--seed", str(asked.seed),
                *(["--blind"] if asked.blind else [])]  # fmt: skip
        sys.exit(max(subprocess.run([*argv, name], check=False).returncode for name in names))
    if importlib.util.find_spec("atheris") and not asked.blind:
        guided(asked.target, asked.runs, asked.seed, asked.seconds)
    from tests.fuzz.targets import TARGETS, corpus  # noqa: PLC0415 - as above

    watch = Watch(asked.target, TARGETS[asked.target], asked.runs)
    signal.signal(signal.SIGALRM, _hang)
    blindly(watch, corpus(asked.target), asked.runs, asked.seed)


if __name__ == "__main__":
    main()
