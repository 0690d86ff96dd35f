"""`python -m tests.failing_calls --seed N [--rounds 20]`: system calls of a manager fail at random.

Each round lets so many of them fail for a while, as reloads, deaths of workers, scaling, config
changes and questions come, and then none. The manager must live, reload well after that, serve each
request, and hold as many descriptors as before.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from sockmgr.config.spec import Accept
from tests.crash_points.deeds import add, canary, reload, undo
from tests.crash_points.places import Alone
from tests.deaths import Death, kill
from tests.e2e.harness import wait_for
from tests.e2e.programs.release import answered
from tests.helpers.load import Load
from tests.soak.processes import grown, look

INSIDE = Path(__file__).with_name("inside")
AT_REST = 60.0
PROBABILITIES = (0.01, 0.05, 0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--accept", choices=list(Accept), default=Accept.DISPATCH)
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory() as top:
        switch = Path(top, "fails")
        env = {"PYTHONPATH": str(INSIDE), "FAILING_CALLS": str(switch)}
        with Alone(Accept(chosen.accept), Path(top), env=env) as place:
            flaws = _play(place, switch, chosen.seed, chosen.rounds)
            if flaws:
                print(place.log[-15_000:], file=sys.stderr)
        failed = Path(f"{switch}.log").read_text().splitlines()
    names = Counter(line.split()[0] for line in failed)
    print(f"{len(failed)} calls failed: {dict(names)}")
    for flaw in flaws:
        print(f"FLAW {flaw}")
    print("last failures:", *failed[-12:] if flaws else (), sep="\n  ")
    return 1 if flaws else 0


def _play(place: Alone, switch: Path, seed: int, rounds: int) -> list[str]:
    dice = random.Random(seed)
    pid, looks = place.manager, []
    for number in range(rounds):
        deaths: list[Death] = []
        try:
            with place.load() as load:
                answered(load, count=5)
                new = switch.with_name("new")
                new.write_text(f"{seed}.{number} {dice.choice(PROBABILITIES)}")
                new.rename(switch)
                for _ in range(4):
                    _do(place, load, dice, deaths)
                switch.unlink()
                wait_for(
                    lambda: place.is_at_rest(anew=True), "the service to serve", timeout=AT_REST
                )
                place.forget()
                undo(place)
                place.do("scale", "http", "2")
                assert place.do("reload") == 0, "a sound config was not taken"
                wait_for(place.is_at_rest, "all to be at rest", timeout=AT_REST)
                answered(load, count=10)
                result = load.stop()
            assert place.status()["manager"]["pid"] == pid, "the manager has died"
        except (AssertionError, TimeoutError, OSError, KeyError) as error:
            switch.unlink(missing_ok=True)
            return [f"round {number}: {type(error).__name__}: {error}"]
        lost = [row for row in result.failed if not any(d.took(row) for d in deaths)]
        if "Traceback" in place.log:
            return [f"round {number}: an exception that nobody has caught"]
        if lost:
            return [f"round {number}: lost {len(lost)}: {result.failures()}"]
        looks.append(look(place))
        print(f"round {number}: {len(result.rows)} requests", flush=True)
    return list(grown(looks))


def _do(place: Alone, load: Load, dice: random.Random, deaths: list[Death]) -> None:
    with suppress(OSError, RuntimeError, KeyError):  # who asks may not be heard
        match dice.randrange(7):
            case 0:
                reload(place)
            case 1:
                canary(place)
            case 2:
                place.begin("scale", "http", dice.choice(("+1", "-1", "2")))
            case 3:
                add(place)
            case 4:
                workers = place.workers("http")
                deaths.append(kill(max(pid for pid in workers if pid), load))
            case 5:
                os.kill(max(place.workers("side")), signal.SIGKILL)
            case _:
                place.begin("status")
    answered(load, count=dice.randrange(5, 60))


if __name__ == "__main__":
    sys.exit(main())
