"""`make demo-canary`: canaries that are good, answer 500, fail their check; all answers counted."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from sockmgr.torture.load.result import Outcome
from tests.demo import Story
from tests.e2e.apps import EXAMPLES, App
from tests.e2e.harness import Manager
from tests.helpers.load import Load, Result

MODES = ("short:rate=250", "ka:conns=8,rate=50")
WANTED_CODES = [0, 1, 1]


def config() -> str:
    """Return that of the example, on a port that is free and with its application beside it."""
    text = (EXAMPLES / "canary" / "sockmgr.toml").read_text()
    text = text.replace("127.0.0.1:8000", "127.0.0.1:0")
    return text.replace('app = "app:app"', 'app = "app:app"\ncwd = "canary"')


def play(manager: Manager, app: App, story: Story) -> list[int]:
    """Deploy what works, what answers 500 now and then, and what fails its check."""
    codes = []
    for told, code in (
        ("version 2 works", 'VERSION = "2"\nFAILS = 0'),
        ("version 3 answers every fourth request by 500", 'VERSION = "3"\nFAILS = 4'),
        ("version 4 works, and its check fails", 'VERSION = "4"\nFAILS = 0'),
    ):
        story.tell(f"{told}\n         $ sockmgr reload")
        app.deploy_code(code)
        if "check" in told:
            (app.directory / "not-yet").touch()
        done = manager.say("reload", timeout=120)
        story.reloaded(done)
        codes.append(done.code)
        time.sleep(1)  # for the eye: some answers between two acts
    return codes


def verdict(result: Result, codes: list[int]) -> bool:
    """Print the count; return whether all went as it should."""
    answers = Counter(row.version for row in result.rows if row.outcome is Outcome.OK)
    own = [row for row in result.failed if row.outcome is Outcome.HTTP_5XX]
    print(f"\n{result}")
    told = ", ".join(f"{count} by version {version}" for version, count in sorted(answers.items()))
    print(f"  answered: {told}; {len(own)} times 500, by version 3; exit codes {codes}")
    lost = [row for row in result.lost if row.outcome is not Outcome.HTTP_5XX]
    good = not lost and own and codes == WANTED_CODES
    print(f"\n{'nothing else was lost' if good else 'THIS IS NOT AS IT SHOULD BE'}")
    return bool(good)


def main() -> int:
    """Run; 0 only if nothing but version 3 failed, and the exit codes were 0, 1, 1."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-demo-") as directory:
        app = App("canary", Path(directory))
        story = Story()
        story.tell("starting 2 workers of version 1")
        manager = Manager(Path(directory), config())
        with manager, Load(manager.target(), MODES) as load:
            story.tell(f"serving; load begins: {', '.join(MODES)}")
            time.sleep(1)
            codes = play(manager, app, story)
            result = load.stop()
        return 0 if verdict(result, codes) else 1


if __name__ == "__main__":
    sys.exit(main())
