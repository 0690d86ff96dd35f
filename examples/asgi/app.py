"""An ASGI application without a framework: `/`, `/slow?s=2` and `/stream?s=4`."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from version import VERSION

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def import_slowly(seconds: float) -> None:
    """Take as long as a larger application does to import: half asleep, half at work."""
    time.sleep(seconds / 2)
    end = time.process_time() + seconds / 2
    while time.process_time() < end:
        pass


import_slowly(float(os.environ.get("IMPORT_SECONDS", "0")))


def answer() -> bytes:
    """Say who answers."""
    return json.dumps({"pid": os.getpid(), "version": VERSION}).encode()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Route one connection scope."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        query = parse_qs(scope["query_string"].decode())
        seconds = min(60.0, float(query.get("s", ["1"])[0]))
        if scope["path"] == "/stream":
            await stream(send, seconds)
        else:
            await asyncio.sleep(seconds if scope["path"] == "/slow" else 0)
            await respond(send, answer())


async def lifespan(receive: Receive, send: Send) -> None:
    """Start up and shut down as the server asks."""
    while (message := await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    if message["type"] == "lifespan.shutdown":
        await send({"type": "lifespan.shutdown.complete"})


async def respond(send: Send, body: bytes) -> None:
    """Answer at once."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Send, seconds: float) -> None:
    """Answer in chunks for so many seconds, and finish with END."""
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer() + b"\n", "more_body": True})
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(0.2, left))
        await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"END\n"})
