"""What is lost when managers die, are restarted or upgraded, and when workers or templates die:
`python -m tests.reliability`.

Needs root, for the real systemd. `--write` puts the table into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sockmgr.torture.load.result import Outcome
from tests import deaths
from tests.e2e.apps import App
from tests.e2e.commands import UVICORN, config
from tests.e2e.harness import Manager, wait_for
from tests.helpers.load import Load
from tests.systemd.machine import PYTHON, Machine
from tests.systemd.site import SERVICE, Site

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
MARK = "<!-- the table: python -m tests.reliability --write -->\n"
MODES = ("short:rate=200", "slow:conns=2,s=0.3")
KEPT = "kat:conns=4,think=0.02"  # where the workers stay: a server that drains closes idle ones
# The same server under systemd, as it is found inside of the machine.
INSIDE = (PYTHON, "-m", "uvicorn", *UVICORN[1:-1], "--app-dir", "asgi", UVICORN[-1])


def measure(
    what: str,
    load: Callable[..., Load],
    pids: Callable[[], set[int]],
    act: Callable[[], None],
    *,
    same: bool = True,
) -> str:
    """Do it under load and return a line of the table; `same`: the workers must stay."""
    before = pids()
    with load(*MODES, *([KEPT] if same else [])) as running:
        act()
    result = running.result
    counts = Counter(row.outcome for row in result.rows)
    reset = counts[Outcome.RESET0] + counts[Outcome.RESET_MID]
    longest = result.latencies(result.select(modes=["short"]))["max"]
    kept = ("yes" if pids() == before else "NO") if same else "replaced"
    line = (
        f"| {what} | {len(result.rows)} | {len(result.failed)} | {counts[Outcome.REFUSED]} "
        f"| {reset} | {kept} | {longest * 1000:.0f} ms |"
    )
    print(line, *([result.failures()] if result.failed else []), sep="\n", flush=True)
    return line


class UnderSystemd:
    """A site on a booted machine with uvicorn, and what is done to its manager."""

    def __init__(self, site: Site) -> None:
        self.site, self.machine = site, site.machine

    def pids(self) -> set[int]:
        return set(self.site.workers())

    def table(self) -> list[str]:
        def line(what: str, act: Callable[[], None], *, same: bool = True) -> str:
            return measure(what, self.site.load, self.pids, act, same=same)

        return [
            line("`systemctl restart` twice", self.restart),
            line("SIGSTOP, and the watchdog", self.hang),
            line("`systemctl reload`, again and again for 30 s", self.reload, same=False),
        ]

    def restart(self) -> None:
        for _ in range(2):
            self.machine.systemctl("restart", SERVICE)

    def hang(self) -> None:
        old = self.site.main_pid
        self.machine.run("kill", "-STOP", str(old))
        wait_for(lambda: self.site.main_pid not in (0, old), "another manager")
        wait_for(lambda: self.machine.property(SERVICE, "ActiveState") == "active", "READY=1")

    def reload(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            self.machine.systemctl("reload", SERVICE)


class Without:
    """A manager with uvicorn, and what is done to it."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager

    def pids(self) -> set[int]:
        return {worker["pid"] for worker in self.manager.workers()}

    def table(self) -> list[str]:
        def line(what: str, act: Callable[[], None], *, same: bool = True) -> str:
            return measure(what, self._load, self.pids, act, same=same)

        return [line("`sockmgr upgrade` 20 times", self.upgrade)]

    def upgrade(self) -> None:
        for _ in range(20):
            assert self.manager.run("upgrade").code == 0

    def _load(self, *modes: str) -> Load:
        return Load(self.manager.target(), modes)


def under_systemd() -> list[str]:
    with Machine() as machine:
        site = Site(machine, {"http": "tcp://127.0.0.1:8000"}, command=INSIDE)
        App("asgi", site.directory("http"))
        site.install()
        site.drop_in("[Service]\nRestartSec=100ms\nWatchdogSec=2s\n")
        site.start()
        return UnderSystemd(site).table()


def without_systemd() -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        app = App("asgi", Path(directory))
        with Manager(Path(directory), config(app, UVICORN)) as manager:
            return Without(manager).table()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    arguments = parser.parse_args()
    head = (
        "| | requests | failed | refused | reset | same workers | longest wait |\n"
        + "|---" * 7
        + "|"
    )
    table = "\n".join([
        "", "### Under systemd", "", head, *under_systemd(),
        "", "### Without", "", head, *without_systemd(),
        "", "### Who is killed: under systemd", "", deaths.HEAD, *deaths.under_systemd(),
        "", "### Who is killed: without", "", deaths.HEAD, *deaths.without_systemd(), "",
    ])  # fmt: skip
    if arguments.write:
        text = PAGE.read_text()
        PAGE.write_text(text[: text.index(MARK) + len(MARK)] + table)


if __name__ == "__main__":
    main()
