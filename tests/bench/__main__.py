"""`python -m tests.bench`: measure everything side by side and print it as Markdown."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.bench import costs, rollout
from tests.bench.contender import CONTENDERS
from tests.bench.report import Costs, document, narrate
from tests.bench.rollout import Figures
from tests.load.result import percentile


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=("reloads", "costs"), help="measure only these")
    parser.add_argument(
        "--tool", default="", metavar="TEXT", help="only contenders with TEXT in their name"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the document here, too")
    return parser.parse_args()


def _reloads(tool: str) -> tuple[list[Figures], float]:
    figures, boots = [], []
    for contender in CONTENDERS:
        if tool in contender.name:
            # Each time, so that a machine that gets busier gets busier for both.
            narrate("four workers by themselves …")
            boots.append(rollout.boot_seconds())
            narrate(f"{contender.described} …")
            figures.append(rollout.measure(contender))
    return figures, percentile(boots, 0.5)


def _costs() -> Costs:
    narrate("idle manager …")
    idle = costs.idle()
    narrate("requests a second …")
    kept = costs.throughput("kat:conns=16,think=0")
    short = costs.throughput("slow:path=/,conns=16")
    narrate("first answer …")
    first_answer = costs.first_answer()
    narrate("many workers …")
    return Costs(
        idle=idle, kept=kept, short=short, first_answer=first_answer, spawning=costs.spawning()
    )


def main() -> int:
    """Measure, print, and write if asked to. Figures never fail a run: they are for reading."""
    arguments = _arguments()
    load_before = os.getloadavg()[0]
    figures, boot = ([], 0.0) if arguments.only == "costs" else _reloads(arguments.tool)
    found = None if arguments.only == "reloads" else _costs()
    command = " ".join(["python -m tests.bench", *sys.argv[1:]])
    text = document(figures, boot, found, command=command, load_before=load_before)
    print(text)
    if arguments.write:
        arguments.write.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
