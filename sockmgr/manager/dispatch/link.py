"""One worker as the dispatcher sees it: its channel, its ledger, and whether it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sockmgr.manager.dispatch.channel import QUESTION, Channel
from sockmgr.manager.dispatch.ledger import Ledger


@dataclass(slots=True, kw_only=True, eq=False)
class Link:
    """The state of one worker. Owns its channel."""

    lease: int
    name: str  # of the worker, for the log
    channel: Channel
    ledger: Ledger
    keys: Sequence[str]  # of the listeners that it serves, as the worker numbers them
    numbers: dict[str, int] = field(init=False)
    unseen: int = 0  # connections passed since we last looked whether it takes them
    mark: int | None = None  # how many it had taken when we last looked, if some waited
    silent_at: float = 0.0  # since when it leaves waiting connections alone; 0: it takes
    broken: bool = False  # none of its reports is believed any more
    given_up: bool = False  # its replacement has been requested
    leaving: bool = False  # it has begun to leave, and need not take anything
    gone: bool = False  # no process has the other end of the channel any more

    def __post_init__(self) -> None:
        """Know the number of each listener."""
        self.numbers = {key: number for number, key in enumerate(self.keys)}

    @property
    def waiting(self) -> int:
        """How many connections the worker has still to take. A question is always behind them."""
        return max(0, self.channel.untaken - (QUESTION if self.ledger.asked else 0))

    def ask(self) -> None:
        """Ask the worker for a report, unless a question is open; raises OSError."""
        if not self.ledger.asked:
            self.channel.ask(self.ledger.question())
            self.ledger.ask()

    def ask_again(self) -> None:
        """Send the open question again if it was taken back with connections; raises OSError."""
        if self.ledger.asked and self.silent_at and not self.gone and not self.channel.untaken:
            self.channel.ask(self.ledger.asked)

    def stands_still(self) -> bool:
        """Return whether connections wait and the worker has taken none since the last call."""
        waiting = self.waiting
        before, self.mark = self.mark, self.ledger.passed - waiting if waiting else None
        return self.mark is not None and before == self.mark
