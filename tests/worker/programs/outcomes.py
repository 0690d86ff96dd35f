"""Applications whose paths say how a request ends: in ASGI, and in WSGI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

SLOW = 0.3  # seconds


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await _handshake(scope["path"], receive, send)
    elif scope["path"] != "/nothing":
        await _answer(scope["path"], receive, send)


async def _answer(path: str, receive: Any, send: Any) -> None:
    if path == "/slow":
        await asyncio.sleep(SLOW)
    elif path == "/gone":
        await _until_gone(receive)
    if path in ("/raises", "/gone"):
        raise ValueError(path)
    status = int(path[1:]) if path[1:].isdigit() else 500 if path == "/both" else 200
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if path == "/streams":
        await _until_gone(receive)
    if path in ("/breaks", "/both"):
        raise ValueError(path)
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _handshake(path: str, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    if path == "/raises":
        raise ValueError(path)
    await send({"type": "websocket.accept" if path == "/ws" else "websocket.close"})
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": "heard"})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(SLOW)
    if path == "/raises":
        raise ValueError(path)
    start_response("503 Sorry" if path == "/503" else "200 OK", [("Content-Length", "0")])
    return [b""]
