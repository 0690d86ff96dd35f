"""`python -m tests.upgrade --from DIR`: what is lost when a manager of the version in DIR is
followed by one of this checkout, and when that one then reloads all services.

DIR is a checkout with a `.venv`. Prints a table; the exit status is 1 if anything was lost.
Needs a C compiler; as root it boots a real systemd, too.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.load import Load, Result
from tests.systemd.machine import why_impossible
from tests.upgrade.places import Alone, Place, UnderSystemd, killed, upgraded
from tests.upgrade.services import KINDS

FLOOR = 300  # answers of each service, in each of the two parts
RELOADS = 2  # the first one ends workers of the version before, the second one those of ours
HEAD = (
    "| how | service | requests | failed | same workers | in reloads: requests | failed |\n"
    + "|---" * 7
    + "|"
)


@contextlib.contextmanager
def loaded(place: Place, *, drains: bool) -> Iterator[dict[str, Result]]:
    """Load all services; the results are there when the block is left."""
    found: dict[str, Result] = {}
    with contextlib.ExitStack() as running:
        loads: dict[str, Load] = {}
        for name, kind in KINDS.items():
            loads[name] = place.load(name, kind.modes(drains=drains), FLOOR)
            running.enter_context(loads[name])
        yield found
    for name, load in loads.items():
        found[name] = load.result
        if load.result.failed:
            print(f"{name}: {load.result.failures()}", *load.result.failed[:5], sep="\n")


def pids(place: Place) -> dict[str, set[int]]:
    services = place.status()["services"]
    return {name: {w["pid"] for w in services[name]["workers"]} for name in KINDS}


def table(how: str, place: Place) -> tuple[list[str], bool]:
    """Return the lines of one way to be followed, and whether nothing was lost."""
    before = pids(place)
    with loaded(place, drains=False) as followed:
        place.follow()
    after = pids(place)
    with loaded(place, drains=True) as reloaded:
        for _ in range(RELOADS):
            assert place.reload() == 0, "a reload has failed"
    # That the units are those of the version before is true.
    found = [one for one in place.findings() if one["check"] != "unit-outdated"]
    if problems := [one for one in found if one["severity"] == "problem"]:
        raise AssertionError(f"doctor: {problems}")
    left = place.stop()
    assert left == 0, f"{left} processes are left"
    lines = []
    for name in KINDS:
        kept = "yes" if before[name] == after[name] else "NO"
        first, second = followed[name], reloaded[name]
        cells = (
            how, name, len(first.rows), len(first.failed), kept,
            len(second.rows), len(second.failed),
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lost = any(result.failed for one in (followed, reloaded) for result in one.values())
    return lines, not lost and before == after


def main() -> int:
    """Measure all ways; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="before", type=Path, required=True, metavar="DIR")
    before: Path = parser.parse_args().before.resolve()
    print(HEAD, flush=True)
    good = True
    for how, follow in (("`sockmgr upgrade`", upgraded), ("kill -9, and `run`", killed)):
        with (
            tempfile.TemporaryDirectory() as directory,
            Alone(Path(directory), before, follow) as place,
        ):
            good = show(*table(how, place)) and good
    if why := why_impossible():
        print(f"no systemd can be booted here: {why}", file=sys.stderr)
        return 1
    with UnderSystemd(before) as machine:
        return 0 if show(*table("`systemctl restart`", machine)) and good else 1


def show(lines: list[str], good: bool) -> bool:
    print(*lines, sep="\n", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())
