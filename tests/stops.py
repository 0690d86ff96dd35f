"""What clients notice when a manager is stopped, again and again: `python -m tests.stops`.

Needs root, for the real systemd. Who comes when the stop has begun may be refused; who came before,
and whoever waits in a queue, is to be answered. Where systemd holds the socket nobody is refused:
the next connection starts the next manager, unless systemd closes it as well. `--write` puts the
table into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sockmgr.torture.load.result import Outcome
from tests import deaths
from tests.e2e.apps import App
from tests.e2e.commands import UVICORN
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import answered
from tests.helpers.load import Load, Result, Target
from tests.systemd.endings import SOCKET
from tests.systemd.machine import Machine
from tests.systemd.site import SERVICE

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
MARK = "<!-- the table: python -m tests.stops --write -->\n"
END = "<!-- its end -->\n"
TIMES = 20
# Who is told that nobody listens goes elsewhere, and has lost nothing.
REFUSED = frozenset({Outcome.REFUSED, Outcome.NOENT})
HEAD = (
    "| systemd | listener | `accept` | workers | stops | requests | answered | refused "
    "| reset or closed |\n" + "|---" * 9 + "|"
)


@dataclass(slots=True)
class Tally:
    """What became of the requests of many stops."""

    stops: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result, stops: int = 1) -> None:
        self.stops += stops
        # What the judge could not even send, as a thousand wait for an answer, is no request.
        sent = [row for row in result.rows if row.outcome is not Outcome.LOCAL_LIMIT]
        self.outcomes.update(row.outcome for row in sent)
        lost = [row for row in sent if row.outcome not in {*REFUSED, Outcome.OK}]
        self.lost.update(f"{row.mode}:{row.outcome}" for row in lost)

    @property
    def cells(self) -> str:
        """The last cells of a line of the table."""
        done, refused = self.outcomes[Outcome.OK], sum(self.outcomes[one] for one in REFUSED)
        return f"{self.stops} | {self.outcomes.total()} | {done} | {refused} | {self.lost.total()}"


def modes(server: str) -> tuple[str, ...]:
    # uvicorn closes idle connections when it drains, though a client may be writing.
    return deaths.MODES if server == "uvicorn" else (*deaths.MODES, deaths.KEPT)


# --- Without systemd -----------------------------------------------------------------------------


def config(app: App, server: str, accept: str, address: str, more: str = "") -> str:
    words = ", ".join(f'"{word}"' for word in UVICORN)
    return f"""
{more}
[listen]
http = "{address}"

[service.web]
{f"command = [{words}]" if server == "uvicorn" else deaths.APP.format(app="app:app")}
workers = 2
cwd = "{app.directory}"
accept = "{accept}"
"""


def alone(server: str, accept: str, kind: str, times: int, more: str = "") -> Tally:
    """Stop a manager of our own, by the signal and by the verb in turn."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as directory:
        app = App("asgi", Path(directory))
        address = "tcp://127.0.0.1:0" if kind == "tcp" else f"unix://{directory}/web.sock"
        for number in range(times):
            text = config(app, server, accept, address, more)
            with Manager(Path(directory), text) as manager:
                with Load(manager.target(), modes(server)) as load:
                    answered(load, count=40)
                    if number % 2:
                        manager.stop()
                    else:
                        os.kill(manager.pid, signal.SIGTERM)
                        assert manager.wait() == 0
                    wait_for(lambda: refused(load), "a refusal")
                tally.add(load.result)
    return tally


def refused(load: Load) -> bool:
    return any(row.outcome in REFUSED for row in load.result.rows)


# --- Under systemd -------------------------------------------------------------------------------


def under_systemd(server: str, accept: str, kind: str, times: int) -> Tally:
    """Stop the service again and again; its socket stays, and starts it again."""
    tally = Tally()
    with Machine() as machine:
        path = machine.shared / "web.sock"
        address = "tcp://127.0.0.1:8000" if kind == "tcp" else f"unix://{path}?mode=0666"
        site = deaths.site(machine, server, accept, address)
        there = Load(Target.at_path(str(path)), modes(server)) if kind == "unix" else None
        with there or site.load(*modes(server)) as load:
            for _ in range(times):
                answered(load, count=40)
                machine.systemctl("stop", SERVICE)
                wait_for(lambda: machine.property(SERVICE, "ActiveState") == "active", "the next")
            answered(load, count=40)
        tally.add(load.result, times)
    return tally


def with_the_socket(server: str, accept: str, kind: str, times: int) -> Tally:
    """Stop the service and its socket, as a shutdown of the machine does."""
    assert kind == "tcp"
    tally = Tally()
    with Machine() as machine:
        site = deaths.site(machine, server, accept)
        for _ in range(times):
            machine.systemctl("start", SOCKET, SERVICE)
            with site.load(*modes(server)) as load:
                answered(load, count=40)
                machine.systemctl("stop", SOCKET, SERVICE)
                wait_for(lambda: refused(load), "a refusal")
            tally.add(load.result)
    return tally


# --- The table -----------------------------------------------------------------------------------

Stops = Callable[[str, str, str, int], Tally]


def lines(times: int) -> Iterator[str]:
    """Yield a line of the table for each case."""
    places: tuple[tuple[str, str, Stops], ...] = (
        ("none", "tcp", alone), ("none", "unix", alone),
        ("holds it", "tcp", under_systemd), ("holds it", "unix", under_systemd),
        ("closes it", "tcp", with_the_socket),
    )  # fmt: skip
    for place, kind, stops in places:
        for accept, server in deaths.CELLS:
            if (kind, accept) != ("unix", "per-worker"):  # they share a queue there
                tally = stops(server, accept, kind, times)
                line = f"| {place} | {kind} | `{accept}` | {server} | {tally.cells} |"
                print(line, *([dict(tally.lost)] if tally.lost else []), sep="\n", flush=True)
                yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=TIMES, help="stops of each line")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    arguments = parser.parse_args()
    table = "\n".join(["", HEAD, *lines(arguments.times), "", ""])
    if arguments.write:
        before, _, rest = PAGE.read_text().partition(MARK)
        PAGE.write_text(f"{before}{MARK}{table}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
