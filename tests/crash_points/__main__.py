"""`python -m tests.crash_points [POINT[:TIME]...]`: kill managers at crash points, under load.

Without names: at each, in each accept model, with systemd and without. `--alone`, `--systemd` and
`--accept MODEL` leave out the others. Needs root for systemd. A line for each point tells what was
lost; the exit code is 0 only if nothing was, and each mark was there.
"""

from __future__ import annotations

import argparse
import sys

from sockmgr.config.spec import Accept
from tests.crash_points.deeds import points
from tests.crash_points.play import play


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", nargs="*")
    parser.add_argument("--accept", choices=list(Accept))
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--alone", action="store_true")
    only.add_argument("--systemd", action="store_true")
    chosen = parser.parse_args()
    lost = 0
    for systemd in (False, True):
        if (systemd and chosen.alone) or (not systemd and chosen.systemd):
            continue
        for accept in [Accept(chosen.accept)] if chosen.accept else Accept:
            lost += _cell(points(chosen.points), accept, systemd=systemd)
    return 1 if lost else 0


def _cell(points: list[str], accept: Accept, *, systemd: bool) -> int:
    """Print a line for each point of one place and model; return how many went wrong."""
    told = f"{'systemd' if systemd else 'alone'} {accept}"
    killed = requests = flaws = 0
    for outcome in play(points, accept, systemd=systemd):
        print(f"{told} {outcome.point}: {outcome.flaw or 'nothing lost'}", flush=True)
        print(outcome.log, end="", file=sys.stderr)
        killed, requests = killed + 1, requests + outcome.requests
        flaws += bool(outcome.flaw)
    print(f"{told}: killed at {killed} points, {requests} requests, {flaws} flaws", flush=True)
    return flaws


if __name__ == "__main__":
    sys.exit(main())
