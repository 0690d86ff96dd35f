"""What one service has run until now: its history, and the names of its releases.

Owns the commands that find the names. Nothing waits for a name: a generation has none until then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from sockmgr.errors import ControlError
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.history import UNCHANGED, History, Kept, Origin
from sockmgr.fleet.messages import Action
from sockmgr.log import Log
from sockmgr.manager.service.naming import Naming, name_of
from sockmgr.manager.workers.context import WorkerContext

log = Log("sockmgr")


class Past:
    """The history of one service; `changed` is called when a name was found."""

    def __init__(self, service: str, context: WorkerContext, changed: Callable[[], None]) -> None:
        self.history = History()
        self._service, self._context, self._changed = service, context, changed
        self._namings: dict[int, Naming] = {}

    def resume(self, record: bytes, fleet: Fleet) -> None:
        """Go on with what another manager remembered, which may be nothing."""
        try:
            self.history = History.read(record)
        # Whatever is wrong with it, what serves is in records of its own, and goes on.
        except ValueError as error:
            log.warning("history not read", service=self._service, error=error,
                        means="there is nothing to go back to")  # fmt: skip
        now = self._context.loop.time()
        # A command that looked for a name may have ended with the manager that had started it.
        for generation in self.history.resume(fleet, now, time.time()):
            self._find_name(generation)

    def follow(self, fleet: Fleet, actions: Iterable[Action], origin: Origin) -> None:
        """Remember what the fleet has done; a generation that has begun came by `origin`."""
        now = self._context.loop.time()
        for generation in self.history.follow(fleet, actions, origin, now, time.time()):
            self._find_name(generation)

    async def check_name(self, number: int, kept: Kept) -> None:
        """Raise ControlError if the directory of an earlier generation has another release now."""
        if not kept.release or kept.spec.release is None:
            return
        # Who deploys in place has overwritten what that generation ran. Where the name cannot be
        # found any more nothing is known, and a release that is there is not refused for it.
        title = f"{self._service}@{number} release"
        name, _ = await name_of(title, kept.spec, self._context)
        if name not in ("", kept.release):
            raise ControlError(
                f"generation {number} was release {kept.release}, and {kept.spec.cwd} has {name} "
                "now",
                means=UNCHANGED,
                do=f"put {kept.release} there again, and reload; releases in directories of their "
                "own can be gone back to",
            )

    def close(self) -> None:
        for naming in self._namings.values():
            naming.close()

    def _find_name(self, generation: Generation) -> None:
        if generation.spec.release is None:
            return
        # Nobody waits for it: a name that is late is no reason to start late, nor to abort.
        number = generation.number
        title = f"{self._service}@{number} release"
        done = partial(self._named, number)
        self._namings[number] = naming = Naming(title, generation.spec, self._context, done)
        naming.begin()

    def _named(self, number: int, name: str, fault: str) -> None:
        self._namings.pop(number, None)
        if fault:
            log.warning("release has no name", service=self._service, generation=number,
                        because=fault)  # fmt: skip
            return
        log.info("release named", service=self._service, generation=number, release=name)
        self.history.name(number, name)
        self._changed()
