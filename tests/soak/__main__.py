"""`python -m tests.soak --minutes 20 --seed 1`: a manager under load, reloads and faults.

One service is under load in five client modes while all else is drawn from the seed: reloads of all
kinds, also to other ways of accepting, and faults, of which those that kill somebody are told whose
connections they took. In the second half no manager, dispatcher, keeper or guard is killed, so that
one can see whether they grow. `--systemd` has it under a systemd of its own; as root.

The exit code is 0 only if no request was lost but those in the hands of a process that was killed,
every verdict was as it should be, and nothing has grown.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sockmgr.config.spec import Accept
from sockmgr.torture.load.result import Outcome
from tests.crash_points.deeds import reload, undo
from tests.crash_points.places import Alone, Place, UnderSystemd
from tests.deaths import Death
from tests.e2e.harness import wait_for
from tests.e2e.programs.release import answered
from tests.helpers.load import Load
from tests.soak import deeds
from tests.soak.processes import Held, grown, look

ROUND = 12  # deeds under one load: what was asked is judged, and forgotten
AT_REST = 90.0
FAULT = 0.4  # of all deeds
IN_RELOAD = 0.4  # of the faults, beside one that was asked for just before


@dataclass(slots=True, kw_only=True)
class Figures:
    """What has happened so far."""

    requests: int = 0
    unsent: int = 0
    took: int = 0  # failed in the hands of a process that was killed
    lost: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    looks: list[dict[str, Held]] = field(default_factory=list)
    slowest: float = 0.0

    def judge(self, load: Load, deaths: list[Death]) -> None:
        """Count the requests of a load."""
        result = load.stop()
        self.requests += len(result.rows)
        self.modes.update(row.mode for row in result.rows)
        self.slowest = max(self.slowest, result.latencies(result.rows)["max"])
        for row in result.failed:
            # It was due, and this judge had no connection free for it while the machine was busy.
            if row.outcome is Outcome.UNFINISHED and math.isnan(row.began):
                self.unsent += 1
            elif any(death.took(row) for death in deaths):
                self.took += 1
            else:
                self.lost.append(f"{row.mode} {row.outcome} {row.detail} at {row.ended:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rate", type=int, default=60, help="new connections a second")
    parser.add_argument("--systemd", action="store_true")
    chosen = parser.parse_args()
    where = "under systemd" if chosen.systemd else "without systemd"
    print(f"seed {chosen.seed}, {chosen.minutes:g} minutes, {where}", flush=True)
    figures = Figures()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as top:
        kind = Accept.SHARED
        with UnderSystemd(kind) if chosen.systemd else Alone(kind, Path(top)) as place:
            try:
                _soak(place, figures, chosen)
            except (AssertionError, TimeoutError, OSError, KeyError) as error:
                figures.lost.append(f"{type(error).__name__}: {error}")
                print(place.log[-20_000:], file=sys.stderr)
    return _tell(figures, time.monotonic() - began)


def _soak(place: Place, figures: Figures, chosen: argparse.Namespace) -> None:
    dice = random.Random(chosen.seed)
    modes = (
        f"short:rate={chosen.rate}", f"ka:conns=8,rate={chosen.rate}", "kat:conns=4,think=0.02",
        "slow:conns=3,s=0.3", "stream:conns=2,s=1",
    )  # fmt: skip
    end = time.monotonic() + 60 * chosen.minutes
    half = time.monotonic() + 30 * chosen.minutes
    while time.monotonic() < end:
        calm = time.monotonic() > half
        deaths: list[Death] = []
        with place.load(*modes) as load:
            for _ in range(ROUND):
                deed = _drawn(dice, calm=calm)
                in_reload = deed in deeds.FAULTS and dice.random() < IN_RELOAD
                at = time.monotonic() - end + 60 * chosen.minutes
                print(f"{at:6.0f} s {deed.__name__}{' in a reload' * in_reload}", flush=True)
                figures.done[deed.__name__] += 1
                place.spoil("none")  # the code that a deed before has spoiled is not for this one
                place.deploy()
                if in_reload:
                    reload(place)
                if death := deed(place, load, dice):
                    deaths.append(death)
                _rest(place)
                codes = place.forget()
                if not in_reload and (wrong := deeds.wrong(deed, codes)):
                    figures.lost.append(f"{wrong}: {place.said}")
                answered(load, count=10)
            _settle(place)
            if calm:
                figures.looks.append(look(place))
            before = len(figures.lost)
            figures.judge(load, deaths)
            if figures.lost[before:]:
                print(place.log[-60_000:], file=sys.stderr, flush=True)
        print(f"{figures.requests} requests, {figures.took} taken, {len(figures.lost)} lost",
              *set(figures.lost), flush=True)  # fmt: skip


def _drawn(dice: random.Random, *, calm: bool) -> deeds.Deed:
    if dice.random() < FAULT:
        return dice.choice(deeds.GENTLE if calm else deeds.FAULTS)
    return dice.choice(deeds.RELOADS if calm else (*deeds.RELOADS, deeds.upgraded))


def _rest(place: Place) -> None:
    """Wait until `http` serves as it should; what is done next meets the rest as it is."""
    wait_for(lambda: place.is_at_rest(anew=True), "the service to serve", timeout=AT_REST)


def _settle(place: Place) -> None:
    """Have all as in the beginning, so that what the processes hold can be compared."""
    place.accept = Accept.SHARED
    undo(place)
    assert place.do("reload") == 0, "a sound config was not taken"
    wait_for(place.is_at_rest, "all to be at rest", timeout=AT_REST)


def _tell(figures: Figures, seconds: float) -> int:
    faults = {each.__name__ for each in deeds.FAULTS}
    done = figures.done
    reloads = sum(n for name, n in done.items() if name not in faults)
    broke = sum(n for name, n in done.items() if name in faults)
    print(f"\n{seconds / 60:.1f} minutes, {figures.requests} requests: {dict(figures.modes)}")
    print(f"{reloads} reloads, {broke} faults of {len(done.keys() & faults)} kinds: {dict(done)}")
    print(f"{figures.unsent} of them were never sent")
    print(f"longest answer {figures.slowest:.1f} s, {figures.took} in the hands of who was killed")
    flaws = list(grown(figures.looks))
    for name, held in figures.looks[-1].items() if figures.looks else ():
        print(f"{name}: {held}")
    for line in (*figures.lost, *flaws):
        print(f"FLAW {line}")
    print(f"lost: {len(figures.lost)}, grown: {len(flaws)}")
    return 1 if figures.lost or flaws else 0


if __name__ == "__main__":
    sys.exit(main())
