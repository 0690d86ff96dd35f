"""The application that `--app` puts in place: `app:app` for ASGI, `app:wsgi` for WSGI.

It is copied into a directory beside a `version.py`, and imports nothing of sockmgr. It answers
`/`, `/slow?s=2`, `/stream?s=4`, POST to `/upload` and, by ASGI, WebSockets at `/ws`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

VERSION = importlib.import_module("version").VERSION
TICK = 0.2  # seconds between two pieces of a stream

# It takes as long as a larger application to import: half asleep, half at work.
_IMPORT_SECONDS = float(os.environ.get("IMPORT_SECONDS", "0.5"))
time.sleep(_IMPORT_SECONDS / 2)
_end = time.process_time() + _IMPORT_SECONDS / 2
while time.process_time() < _end:
    pass

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def _answer(**more: int) -> bytes:
    return json.dumps({"pid": os.getpid(), "version": VERSION, **more}).encode()


def _seconds(query: str) -> float:
    return min(60.0, float(parse_qs(query).get("s", ["1"])[0]))


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        if message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await _echo(receive, send)
    elif scope["path"] == "/stream":
        await _stream(send, _seconds(scope["query_string"].decode()))
    elif scope["path"] == "/upload":
        await _respond(send, _answer(received=await _size_of_body(receive)))
    else:
        if scope["path"] == "/slow":
            await asyncio.sleep(_seconds(scope["query_string"].decode()))
        await _respond(send, _answer())


async def _respond(send: Send, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Send, seconds: float) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _answer() + b"\n", "more_body": True})
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(TICK, left))
        await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"END\n"})


async def _size_of_body(receive: Receive) -> int:
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client went away within its upload")
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return size


async def _echo(receive: Receive, send: Send) -> None:
    """Answer each text message of a WebSocket with who answers."""
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": _answer().decode()})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = environ.get("QUERY_STRING", "")
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return _lines(_seconds(query))
    body = _answer()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(_seconds(query))
    elif environ["PATH_INFO"] == "/upload":
        length = int(environ["CONTENT_LENGTH"])
        body = _answer(received=len(environ["wsgi.input"].read(length)))
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def _lines(seconds: float) -> Iterator[bytes]:
    yield _answer() + b"\n"
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(TICK, left))
        yield b"tick\n"
    yield b"END\n"
