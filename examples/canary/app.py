"""An ASGI application whose releases may fail: version.py says which request does."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from version import FAILS, VERSION

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

requests = itertools.count(1)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer with the version, or with 500 if it is the turn of one that fails."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        if message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
        return
    failed = FAILS and next(requests) % FAILS == 0
    body = json.dumps({"pid": os.getpid(), "version": VERSION}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    status = 500 if failed else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
