"""Streams without an end, in ASGI and WSGI: some see the drain coming, others are cut off."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sockmgr import worker
from sockmgr.worker.drain import Drain

if os.environ.get("DEADLINE") == "at once":
    Drain.left = lambda self: self.last  # type: ignore[method-assign]


class Sentinel(logging.Handler):
    """Prints what an error tracker would report."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            print("error:", record.getMessage().strip(), flush=True)


logging.getLogger().addHandler(Sentinel())
logging.getLogger("uvicorn").propagate = True
logging.getLogger("uvicorn.error").propagate = True


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shut down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    if scope["path"] != "/silent":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    await STREAMS[scope["path"]](scope)
    await send({"type": "http.response.body", "body": b"ended"})


async def _endless(_: Any) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        print("finally", flush=True)


async def _broken(_: Any) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("in the end of a stream")


async def _swallowing(_: Any) -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return


async def _by_function(_: Any) -> None:
    await worker.until_draining()
    assert worker.draining()


async def _by_scope(scope: dict[str, Any]) -> None:
    sign = scope["extensions"]["sockmgr.draining"]
    assert not sign["is_set"]()
    await sign["wait"]()
    assert sign["is_set"]()


STREAMS = {
    "/endless": _endless,
    "/silent": _endless,
    "/broken": _broken,
    "/swallowing": _swallowing,
    "/function": _by_function,
    "/scope": _by_scope,
}


def wsgi(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"begun"
    pause = threading.Event()
    while not worker.draining():
        pause.wait(0.01)
    yield b"ended"
