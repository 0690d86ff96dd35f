"""kill -9 of the manager in the middle of probes, again and again, under load.

`python -m tests.probe_deaths [ROUNDS]`: in each round and each way of accepting, a release whose
workers fail their probes is rolled out, the manager is killed, the next one goes on asking, the
release gets well, and the rollout has to end as it would have. Every request is judged.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.e2e.harness import wait_for
from tests.e2e.probing import ACCEPTS, LOAD, READY, manager_of, named, probed, tell_health
from tests.e2e.servers import has_answered
from tests.helpers.load import Load


def main(rounds: int) -> int:
    """Return 1 if a request failed."""
    failed = 0
    for accept in ACCEPTS:
        with tempfile.TemporaryDirectory() as directory:
            requests, lost = kill(rounds, accept, Path(directory))
        print(f"{accept}: {rounds} deaths, {requests} requests, {lost} failed", flush=True)
        failed += lost
    return 1 if failed else 0


def kill(rounds: int, accept: str, directory: Path) -> tuple[int, int]:
    """Return how many requests there were, and how many of them failed."""
    app = probed(directory)
    keys = (READY, f'accept = "{accept}"')
    rollout = 'warmup = ["/cold"]'
    with (
        manager_of(app, directory, *keys, rollout=rollout) as manager,
        Load(manager.target(), LOAD) as load,
    ):

        def are_asked() -> bool:
            told = {w["probe"] for w in named(manager).values() if w["state"] == "starting"}
            return bool(told) and all("answered 503" in each for each in told)

        for number in range(rounds):
            version = str(number + 2)
            tell_health(app, 503)
            app.deploy(version)
            manager.run("reload", "--timeout", "500ms")
            wait_for(are_asked, "the probes")
            # At any point of the pause between two probes, or of one.
            time.sleep(0.05 * (number % 8))
            manager.kill9()
            manager.start()
            manager.wait_serving()
            if number % 2:
                wait_for(are_asked, "the probes of the next manager")
            tell_health(app)
            wait_for(partial(has_answered, load, version), f"version {version} to answer")
        result = load.stop()
    return len(result.rows), len(result.failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
