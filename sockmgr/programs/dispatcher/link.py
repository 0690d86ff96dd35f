"""One worker as the dispatcher sees it: its channel, its ledger, and whether it takes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sockmgr.kernel.rights import close_all
from sockmgr.programs.dispatcher.channel import QUESTION, Channel, Passed
from sockmgr.programs.dispatcher.ledger import Ledger
from sockmgr.programs.dispatcher.messages import Say

MAX_UNTAKEN = 64  # of one worker; it gets no more before it has taken them all


class Link:
    """The state of one worker, whose name `name` is for the log. Owns its channel."""

    def __init__(
        self, lease: int, name: str, channel: Channel, ledger: Ledger, keys: Sequence[str]
    ) -> None:
        """`keys` are those of the listeners that the worker serves, as the worker numbers them."""
        self.lease, self.name, self.channel, self.ledger = lease, name, channel, ledger
        self.id = channel.id
        self.keys = keys
        self.numbers = {key: number for number, key in enumerate(keys)}
        self.private: set[int] = set()  # the inodes of connections that no other may get
        self.unseen = 0  # connections passed since we last looked whether it takes them
        self.mark: int | None = None  # how many it had taken when we last looked, if some waited
        self.silent_at = 0.0  # since when it leaves waiting connections alone; 0: it takes
        self.broken = ""  # why none of its reports is believed any more
        self.given_up = False  # its replacement has been requested
        self.leaving = False  # it has begun to leave, and need not take anything
        self.gone = False  # no process has the other end of the channel any more

    @property
    def waiting(self) -> int:
        """How many connections the worker has still to take. A question is always behind them."""
        return max(0, self.channel.untaken - (QUESTION if self.ledger.asked else 0))

    def sent(self, number: int) -> bool:
        """Count connections that were passed; tell whether it is to be asked if it takes any."""
        self.ledger.passed += number
        self.unseen += number
        if self.unseen >= MAX_UNTAKEN:
            self.unseen = self.waiting
        return self.unseen >= MAX_UNTAKEN

    def give(self, key: str, fd: int) -> bool:
        """Pass a connection that no other worker may get, and tell whether it can be; borrow it."""
        if self.broken or self.leaving or self.ledger.asked or not self.ledger.known:
            return False  # not behind a question: all that comes there is passed on or counted
        if not self.waiting:
            self.private.clear()
        try:
            self.channel.send([fd], bytes([self.numbers[key]]))
        except (OSError, KeyError):  # there is no room, or it does not serve this listener
            return False
        self.private.add(os.fstat(fd).st_ino)
        self.sent(1)
        return True

    def take_back(self, say: Say) -> Sequence[Passed]:
        """Take back from the channel the oldest connections that the worker has not taken."""
        back = self.channel.take_back()
        if back and back.lost:
            say("error", "connections lost on the way back", count=back.lost,
                why="no free descriptors",
                do="raise LimitNOFILE= or ulimit -n of the manager")  # fmt: skip
        return back.passed if back else ()

    def public(self, back: Sequence[Passed]) -> Sequence[Passed]:
        """Return those that it had not taken and others may get; close the others."""
        if not self.private:
            return back
        mine = [each for each in back if os.fstat(each.fd).st_ino in self.private]
        close_all([each.fd for each in mine])
        return [each for each in back if each not in mine]

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


def broke(error: OSError) -> str:
    """Return why nothing that comes by a channel is believed any more."""
    return f"its channel broke: {(error.strerror or '').lower()}"
