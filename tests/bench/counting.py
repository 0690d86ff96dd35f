"""What it costs a request that its worker counts it: `python -m tests.bench.counting`.

In processor time, beside an application that does nothing. The least of many rounds counts: what is
above that is of others on this machine.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sockmgr.worker.figures import App, Message, OwnFigures

ROUNDS, REQUESTS = 40, 20_000


async def app(_: Message, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


async def receive() -> Message:
    return {"type": "http.disconnect"}


async def send(_: Message) -> None:
    """Send nothing."""


async def cost(of: App) -> float:
    """Return the nanoseconds that one request takes."""
    scope = {"type": "http"}
    began = time.process_time()
    for _ in range(REQUESTS):
        await of(scope, receive, send)
    return (time.process_time() - began) / REQUESTS * 1e9


async def main() -> None:
    counted = OwnFigures().counted(app)
    both = [(await cost(app), await cost(counted)) for _ in range(ROUNDS)]
    bare, more = (min(times) for times in zip(*both, strict=True))
    print(f"{bare:.0f} ns without, {more:.0f} ns with: {more - bare:.0f} ns to count a request")


if __name__ == "__main__":
    asyncio.run(main())
