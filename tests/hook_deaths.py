"""`python -m tests.hook_deaths [ROUNDS]`: kill managers all over reloads that wait for hooks.

Each round asks for a reload whose two hooks take a moment, kills the manager with SIGKILL at an
instant of its own, and starts the next one. Counted is what a hook must never see: another run of
one at the same time. No request may fail, and each rollout must end.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, Ask, Release, answered
from tests.helpers.load import Load

HOOK = """#!/bin/sh
mkdir lock || echo twice >>../twice
sleep 0.15
rmdir lock
"""
HOOKS = '[service.web.hooks]\nbefore = ["./hook"]\nready = ["./hook"]\n'
LONGEST = 1.6  # seconds from the request to the kill: the whole reload takes less


def main(rounds: int) -> int:
    """Return 0 if nothing was lost and no hook met another."""
    with tempfile.TemporaryDirectory() as folder:
        release = Release(Path(folder))
        write(release)
        seen: Counter[str] = Counter()
        with (
            Manager(Path(folder), release.config() + HOOKS) as manager,
            Load(manager.target(), LIGHT) as load,
        ):
            for number in range(rounds):
                release.deploy(str(number + 2))
                write(release)
                asked = Ask(manager)
                answered(load, count=1 + int(LONGEST * 60 * number / rounds))
                seen[phase(manager)] += 1
                manager.kill9()
                asked.hang_up()
                manager.start()
                wait_for(lambda: phase(manager) == "none", "the end of the rollout")
            result = load.stop()
        twice = (Path(folder) / "twice").exists()
        print(f"{rounds} managers killed; the rollout was at: {dict(seen)}")
        print(f"{len(result.rows)} requests, {len(result.failed)} failed {result.failures()}")
        print(f"two hooks at a time: {'yes' if twice else 'never'}")
    return 1 if result.failed or twice else 0


def write(release: Release) -> None:
    """Put the hook into the newest release."""
    (release.directory / "hook").write_text(HOOK)
    (release.directory / "hook").chmod(0o755)


def phase(manager: Manager) -> str:
    """Return how far the rollout is, "none" without one, and "" if nobody says so."""
    try:
        service = manager.status()["services"]["web"]
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        return ""
    return service["rollout"]["phase"] if service["rollout"] else "none"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
