"""Plays schedules, and tells the first that breaks a promise, made short, in words.

python -m tests.simulation 100000            # so many, from a seed that is drawn and said
python -m tests.simulation 100000 --first 7  # from this one on
python -m tests.simulation --seed 12345      # that one alone, and its story
python -m tests.simulation --story FILE      # a story that was kept
python -m tests.simulation 5000 --mutant NAME
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import time
from pathlib import Path

AT_ONCE = 3200  # schedules, of which the pace is told


def main() -> int:
    """Play what the arguments say; return 1 if a promise was broken."""
    arguments = argparse.ArgumentParser(prog="python -m tests.simulation")
    arguments.add_argument("schedules", type=int, nargs="?", default=0)
    arguments.add_argument("--first", type=int, default=random.SystemRandom().randrange(10**9))
    arguments.add_argument("--seed", type=int)
    arguments.add_argument("--story", type=Path)
    arguments.add_argument("--mutant", default="")
    chosen = arguments.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts are to be walked alike each time
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})
    if chosen.mutant:
        from tests.fleet.mutants import install  # noqa: PLC0415 - before what it changes is imported
        from tests.simulation import mutants  # noqa: PLC0415

        install(mutants.named(chosen.mutant))
    from tests.simulation import dispatching  # noqa: PLC0415 - after the mutant

    dispatching.install()
    gc.disable()
    gc.freeze()  # what is loaded stays, and need not be looked at each time
    if chosen.story:
        return _tell(chosen.story)
    if chosen.seed is not None:
        return _campaign(range(chosen.seed, chosen.seed + 1), says=True)
    return _campaign(range(chosen.first, chosen.first + chosen.schedules))


def _tell(path: Path) -> int:
    from tests.simulation import stories  # noqa: PLC0415

    story = stories.read(path)
    lines, what = stories.told(story)
    print("\n".join([*lines, f"BROKEN: {what}" if what else "no promise is broken"]))
    return 1 if what else 0


def _campaign(seeds: range, *, says: bool = False) -> int:
    from tests.simulation import schedule, shrinking, stories  # noqa: PLC0415

    print(f"seeds {seeds.start} to {seeds.stop - 1}", flush=True)
    campaign, began, told = schedule.Campaign(), time.process_time(), 0
    for failure in campaign.run(seeds):
        if failure is None:
            if campaign.schedules >= told + AT_ONCE:
                told = campaign.schedules
                print(_pace(campaign, time.process_time() - began), flush=True)
            continue
        short = shrinking.shrunk(failure)
        print(f"\nseed {failure.seed} breaks a promise, by these {len(short.steps)} steps:\n")
        lines, _ = stories.told(short)
        print("\n".join([*lines, f"BROKEN: {short.what}", "", "as a story to keep:", ""]))
        print(stories.written(short))
        return 1
    print(_pace(campaign, time.process_time() - began))
    print("no promise was broken")
    if says and campaign.last:
        print("\n".join(stories.told(campaign.last)[0]))
    return 0


def _pace(campaign: object, seconds: float) -> str:
    from tests.simulation.schedule import Campaign  # noqa: PLC0415

    assert isinstance(campaign, Campaign)
    return (
        f"{campaign.schedules} schedules of {campaign.length} steps on average, "
        f"{campaign.settled} to their rest, with {campaign.deaths} deaths of managers, "
        f"{campaign.stopped} stops and {campaign.facts} facts that were decided: "
        f"{campaign.schedules / seconds:.0f} a second of processor time"
    )


if __name__ == "__main__":
    sys.exit(main())
