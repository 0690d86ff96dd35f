"""What a line of a worker costs the manager, by format and by version of the code.

`python -m tests.bench.logs [--code DIRECTORY]...`: measures the versions in turn, so that a machine
that has other things to do spares none of them. A worker prints as fast as it is read, and what the
manager writes is thrown away.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.report import number, table
from tests.e2e.apps import ROOT
from tests.e2e.harness import Manager

ACCESS = '10.0.0.1 - - [01/Mar/2026:09:30:12 +0000] "GET /orders/4711?page=2 HTTP/1.1" 200 1843'
OBJECT = '{"level":"info","method":"GET","path":"/orders/4711","status":200,"took":0.0123,"n":1}'
KINDS = {
    "prefix": (ACCESS, ""),
    "json, a text": (ACCESS, '[logs]\nformat = "json"'),
    "json, an object": (OBJECT, '[logs]\nformat = "json"'),
    "raw": (ACCESS, '[logs]\nformat = "raw"'),
}
# Prints once something was written into the FIFO; an unbuffered program writes one line at a time.
PROGRAM = """
import os, signal, sys, time
os.mkfifo(sys.argv[1])
open(sys.argv[1]).read()
lines, block, pause = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
text = (sys.argv[2] + "\\n").encode() * block
for _ in range(lines // block):
    os.write(1, text)
    if pause:
        time.sleep(pause)
os.write(1, b"all is said\\n")
signal.pause()
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """Lines a second, and seconds of the manager's processor time for all of them."""

    lines: float
    cpu: float


class _Reader(threading.Thread):
    """Reads what the manager writes into a FIFO, and waits for the last line of the worker."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self.ended = threading.Event()

    def run(self) -> None:
        rest = b""
        with self._path.open("rb", buffering=0) as fifo:
            while data := fifo.read(1 << 20):
                if b"all is said" in rest + data:
                    self.ended.set()
                rest = data[-20:]


def measure(code: Path, kind: str, lines: int, block: int, pause: float) -> Rate:
    """Let one worker print so many lines, under the manager in the directory `code`."""
    line, logs = KINDS[kind]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        fifo, program, output = (directory / each for each in ("fifo", "printer.py", "output"))
        program.write_text(PROGRAM)
        argv = [sys.executable, "-S", "-E", program, fifo, line, lines, block, pause]
        words = ", ".join(f"'{word}'" for word in argv)
        ready = f"{{ exec = ['test', '-p', '{fifo}'] }}"
        config = f"[service.web]\ncommand = [{words}]\nready = {ready}\ndrain_timeout = 0\n{logs}\n"
        os.mkfifo(output)
        reader = _Reader(output)
        reader.start()
        under = ("sh", "-c", 'exec "$@" >"$0" 2>&1', str(output))
        with Manager(directory, config, code=code, under=under) as manager:
            before, began = _cpu(manager.pid), time.monotonic()
            fifo.write_text("go")
            if not reader.ended.wait(300):
                raise TimeoutError(f"the manager passed on no {lines} lines")
            return Rate(lines / (time.monotonic() - began), _cpu(manager.pid) - before)


def _cpu(pid: int) -> float:
    """Return the seconds of processor time of a process: proc_pid_stat(5)."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure in turn, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.logs", description=__doc__)
    parser.add_argument("--code", type=Path, action="append", help="a directory with sockmgr/")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block", type=int, default=1, help="lines that the worker writes at once")
    parser.add_argument("--pause", type=float, default=0, help="seconds between two such writes")
    given = parser.parse_args()
    cases = [(kind, code) for kind in given.kind or KINDS for code in given.code or [ROOT]]
    rates: dict[tuple[str, Path], list[Rate]] = {case: [] for case in cases}
    for _ in range(given.rounds):
        for kind, code in cases:
            rates[kind, code].append(
                measure(code.absolute(), kind, given.lines, given.block, given.pause)
            )
    rows = [
        (kind, code.name, number(statistics.median(each.lines for each in found)),
         number(statistics.median(each.cpu for each in found) / given.lines * 1e6, "µs"))
        for (kind, code), found in rates.items()
    ]  # fmt: skip
    print(table(("format", "code", "lines a second", "of the manager, a line"), rows))


if __name__ == "__main__":
    main()
