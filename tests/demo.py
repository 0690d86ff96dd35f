"""`make demo`: reload a real service under load, break it once, and count what was lost."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.apps import App
from tests.e2e.harness import BIN, Done, Manager
from tests.helpers.load import Load, Result

WORKERS = 4
MODES = ("short:rate=350", "ka:conns=16,rate=150", "slow:conns=2", "stream:conns=2,s=2")
WANTED_CODES = [0, 0, 1]


def config(app: App) -> str:
    return f"""
[listen]
http = "tcp://127.0.0.1:0"

[service.web]
command = ["{BIN / "uvicorn"}", "--fd", "{{http}}", "--log-level", "warning", "app:app"]
workers = {WORKERS}
cwd = "{app.directory}"

[service.web.rollout]
probation = 0.5
max_failed_starts = 1
"""


class Story:
    """Tells what happens, with the seconds since it began."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()

    def tell(self, text: str) -> None:
        print(f"{time.monotonic() - self._began_at:5.1f} s  {text}", flush=True)

    def reloaded(self, done: Done) -> None:
        """Print what `sockmgr reload` itself says to a person, with its exit code."""
        lines = done.stderr.strip().splitlines() + done.stdout.strip().splitlines()
        if len(lines) > 8:  # the worker's last words are long; its very last line says it all
            lines = [*lines[:3], "  …", lines[-1]]
        for line in lines:
            print(f"         | {line}")
        self.tell(f"exit code {done.code} after {done.seconds:.1f} s")


def play(manager: Manager, app: App, story: Story) -> list[int]:
    """Deploy twice what works and once what does not; return the exit codes."""
    codes = []
    for version in ("2", "3", ""):
        if version:
            story.tell(f"$ echo 'VERSION = \"{version}\"' > version.py; sockmgr reload")
            app.deploy(version)
        else:
            story.tell(
                "$ echo 'import a_module_that_nobody_installed' > version.py; sockmgr reload"
            )
            app.deploy_broken()
        done = manager.say("reload")
        story.reloaded(done)
        codes.append(done.code)
        time.sleep(1.5)  # for the eye: some answers between two acts
    return codes


def verdict(result: Result, codes: list[int]) -> bool:
    """Print the count; return whether all went as it should."""
    versions = sorted({row.version for row in result.rows if row.version})
    print(f"\n{result}")
    print(f"  answered by versions {', '.join(versions)}; exit codes {codes}")
    if result.races:
        print(
            f"  {len(result.races)} of the failed were sent on a kept connection just as its "
            "worker closed it as idle: HTTP clients retry those"
        )
    good = not result.lost and codes == WANTED_CODES
    print(f"\n{'nothing was lost' if good else 'THIS IS NOT AS IT SHOULD BE'}")
    return good


def main() -> int:
    """Run; 0 only if nothing was lost and the exit codes were 0, 0, 1."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-demo-") as directory:
        app = App("asgi", Path(directory))
        story = Story()
        story.tell(f"starting {WORKERS} uvicorn workers under sockmgr")
        manager = Manager(Path(directory), config(app))
        with manager, Load(manager.target(), MODES) as load:
            story.tell(f"serving; load begins: {', '.join(MODES)}")
            time.sleep(1)
            codes = play(manager, app, story)
            result = load.stop()
        return 0 if verdict(result, codes) else 1


if __name__ == "__main__":
    sys.exit(main())
