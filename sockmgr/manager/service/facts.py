"""The facts that a fleet has not been given yet.

They wait here, since performing a command may make some (SpawnFailed): the fleet must not take one
before every command about the last one has been performed.
"""

from __future__ import annotations

import asyncio
import math

from sockmgr.fleet.messages import Fact, Tick


class Facts(asyncio.Queue[Fact]):
    """The queue of one fleet; `put_nowait` adds a fact."""

    async def next(self, deadline: float) -> Fact:
        """Return the next fact, or a Tick if there is none until `deadline` of the loop's clock."""
        if not self.empty():  # a fact that is handled late is a Tick as well
            return self.get_nowait()
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                return await self.get()
        except TimeoutError:
            return Tick()
