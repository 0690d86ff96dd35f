"""Mends what the workers of one service do to its listeners, and remembers what was mended.

Workers hold the very sockets that the manager keeps, so a careless one breaks them for its
successors as well. Owns no listener.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

from sockmgr.api.records import EventKind
from sockmgr.log import Log
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.repair import Damage, Finding, Remedy

log = Log("sockmgr")


class Repairs:
    """The newest repairs, as `sockmgr doctor` shows them: a worker that does harm does it again."""

    def __init__(self, untouched: Callable[[], AbstractContextManager[None]]) -> None:
        """Within `untouched` no manager's dispatcher accepts from the queues of the service."""
        self.done: deque[str] = deque(maxlen=8)
        self._untouched = untouched

    def inspect(
        self, listeners: Collection[Listener], occasion: str, lease: int | None = None
    ) -> bool:
        """Mend these listeners, and tell whether any has a new socket now.

        `occasion` says when the damage was seen. With a `lease` the look is at what a worker that
        has it can have done, and costs the same however many workers and queues there are.
        """
        findings = self._findings(listeners, lease)
        for finding in findings:
            # Most servers call listen(2) with a backlog of their own as they start: no fault.
            if finding.damage is Damage.SHRUNK:
                log.debug(EventKind.LISTENER_REPAIRED, found=finding, occasion=occasion)
                continue
            self.done.append(str(finding))
            log.warning(EventKind.LISTENER_REPAIRED, found=finding, occasion=occasion)
        return any(finding.remedy is Remedy.REPLACED for finding in findings)

    def _findings(self, listeners: Collection[Listener], lease: int | None) -> list[Finding]:
        near = None if any(each.is_damaged for each in listeners) else lease
        # What is damaged may be closed and replaced, and a dispatcher could be accepting there.
        with self._untouched() if near is None else contextlib.nullcontext():
            findings = [found for each in listeners for found in each.inspect(near)]
        if near is not None and any(each.remedy is Remedy.REPLACED for each in findings):
            with self._untouched():  # only a path was lost: its old socket is open, but left behind
                pass
        return findings
