"""An ASGI application whose answers a test can hold back: `/hold` waits for `/release`, or USR1."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

released = asyncio.Event()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Route one connection scope."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        await http(scope, receive, send)


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    if os.environ.get("START_UP") == "fails":
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    if os.environ.get("START_UP") == "hangs":
        print("starting up", flush=True)
        await asyncio.Event().wait()
    scope["state"]["started"] = b"yes"
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, released.set)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("shut down", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    if scope["path"] == "/hold":
        print("holding", flush=True)
        await released.wait()
    elif scope["path"] == "/release":
        released.set()
    elif scope["path"] == "/block":
        time.sleep(60)  # noqa: ASYNC251 - what a test wants to see
    elif scope["path"] == "/large":
        body = bytes(100_000)
    elif scope["path"] == "/pid":
        body = str(os.getpid()).encode()
    elif scope["path"] in ("/client", "/state"):
        body = repr(scope[scope["path"][1:]]).encode()
    await answer(send, body)
    if scope["path"] == "/after":
        print("working on", flush=True)
        await released.wait()
        print("worked on", flush=True)


async def answer(send: Any, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
