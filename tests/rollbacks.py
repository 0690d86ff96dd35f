"""`python -m tests.rollbacks [ROUNDS]`: managers that are killed at each step of a rollback.

Under load, in each accept model. Prints a table; the exit status is 1 if a request failed, or if a
rollback that had begun did not come to the end that it would have come to.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import Ask
from tests.e2e.releases import COMMANDS, Site
from tests.helpers.load import Load

ROUNDS = 20
MODES = ("short:rate=60", "slow:conns=2,s=0.3")
HEAD = "| `accept` | killed when | times | rollbacks | requests | failed |\n" + "|---" * 6 + "|"

Web = dict[str, Any]  # the service, as the status tells
Moment = Callable[[Web, int], bool]  # whether it has come, for the generation of this number


def _has_worker(web: Web, number: int, *states: str) -> bool:
    return any(w["generation"] == number and w["state"] in states for w in web["workers"])


def _cut_over(web: Web, number: int) -> bool:
    return bool(web["rollout"] and web["rollout"]["phase"] == "probation") or _done(web, number)


def _done(web: Web, number: int) -> bool:
    found: int = web["generation"]
    return found == number


MOMENTS: dict[str, Moment] = {
    "it is asked": lambda *_: True,
    "a worker starts": lambda web, n: _has_worker(web, n, "starting", "ready"),
    "a worker is ready": lambda web, n: _has_worker(web, n, "ready"),
    "cut over": _cut_over,
    "committed": _done,
}


def web(manager: Manager) -> Web:
    found: Web = manager.status()["services"]["web"]
    return found


def strike(manager: Manager, load: Load, moment: Moment) -> bool:
    """Ask for a rollback, kill the manager then; return whether the next one went on with it."""
    before = web(manager)
    number = before["generation"] + 1
    ask = Ask(manager, "Rollback")
    wait_for(lambda: moment(web(manager), number), "the moment")
    manager.kill9()
    ask.hang_up()
    manager.start()
    manager.wait_serving()
    wait_for(lambda: web(manager)["rollout"] is None, "the end of the rollout")
    after, first = web(manager), len(load.result.rows)
    other = {"r1": "r2", "r2": "r1"}[before["release"]]
    done = _done(after, number)
    assert after["release"] == (other if done else before["release"])
    assert bool(after["rollback"]) or not done
    wait_for(lambda: len(load.result.rows) > first + 20, "requests")
    answers = [row.version for row in load.result.rows[first:] if row.version]
    assert f"r{answers[-1]}" == after["release"], "another release answers than is told"
    return done


def line(accept: str, when: str, rounds: int) -> tuple[str, bool]:
    """Return a line of the table, and whether all was well."""
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory), accept, 'release = { file = "REVISION" }')
        with Manager(Path(directory), site.config) as manager:
            site.deploy("2")
            assert manager.reload().code == 0
            with Load(manager.target(), MODES) as load:
                done = sum(strike(manager, load, MOMENTS[when]) for _ in range(rounds))
    failed = load.result.failed
    if failed:
        print(load.result.failures())
    text = f"| `{accept}` | {when} | {rounds} | {done} | {len(load.result.rows)} | {len(failed)} |"
    # Whoever dies as soon as it is asked may not have heard it.
    return text, not failed and (done == rounds or when == "it is asked")


def main() -> int:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(HEAD)
    well = True
    for accept in COMMANDS:
        for when in MOMENTS:
            text, is_well = line(accept, when, rounds)
            print(text, flush=True)
            well &= is_well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
