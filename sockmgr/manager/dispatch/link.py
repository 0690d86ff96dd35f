"""One worker as the dispatcher sees it: its channel, its account, and whether it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sockmgr.manager.dispatch.channel import QUESTION, Channel
from sockmgr.manager.dispatch.ledger import Ledger


@dataclass(slots=True, kw_only=True, eq=False)
class Link:
    """Owns the channel."""

    lease: int
    name: str  # of the worker, for the log
    channel: Channel
    ledger: Ledger
    keys: Sequence[str]  # of the listeners that it serves, as the worker numbers them
    numbers: dict[str, int] = field(init=False)
    unseen: int = 0  # passed since we last looked whether it takes
    mark: int | None = None  # how many it had taken when we last looked, if some waited
    silent_at: float = 0.0  # since when it takes nothing, though something waits; 0: it takes
    broken: bool = False  # nothing that it says is believed any more
    told: bool = False  # that it should be replaced
    leaving: bool = False  # it takes nothing any more, and is not expected to
    gone: bool = False  # nobody has the other end any more

    def __post_init__(self) -> None:
        """Know the number of each listener."""
        self.numbers = {key: number for number, key in enumerate(self.keys)}

    @property
    def waiting(self) -> int:
        """How many connections it has still to take. A question is always behind them."""
        return max(0, self.channel.untaken - (QUESTION if self.ledger.asked else 0))

    def ask(self) -> None:
        """Ask it for a report, unless it is being asked; raises OSError."""
        if not self.ledger.asked:
            self.channel.ask(self.ledger.question())
            self.ledger.ask()

    def ask_again(self) -> None:
        """Put a question back that was taken back with what it stood behind; raises OSError."""
        if self.ledger.asked and self.silent_at and not self.gone and not self.channel.untaken:
            self.channel.ask(self.ledger.asked)

    def stands_still(self) -> bool:
        """Tell whether something waits and nothing was taken since the last call."""
        waiting = self.waiting
        before, self.mark = self.mark, self.ledger.passed - waiting if waiting else None
        return self.mark is not None and before == self.mark
