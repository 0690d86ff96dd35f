"""An ASGI application that answers in all the ways there are; the path names the function.

/idle waits until no other request runs, and tells what the ones before went through.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

TEXT = (b"content-type", b"text/plain")
MEBI = bytes(range(256)) * 4096
events: list[str] = []
running: set[object] = set()
left = asyncio.Condition()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one scope."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    name = scope["path"].split("/")[1]
    if name == "idle":
        async with left:
            await left.wait_for(lambda: not running)
        await start(send)
        await part(send, ", ".join(events).encode(), more=False)
        events.clear()
        return
    mark = object()
    running.add(mark)
    try:
        await globals()[name](scope, receive, send)
    finally:
        running.remove(mark)
        async with left:
            left.notify_all()


async def start(send: Send, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [TEXT, *headers]})


async def part(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def says(*parts: bytes, status: int = 200, **headers: str) -> Any:
    """Make a function that answers with these parts."""

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        said = [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ]
        await start(send, *said, status=status)
        for number, each in enumerate(parts, 1):
            await part(send, each, more=number < len(parts))

    return answer


one = says(b"one")
sized = says(b"sized", content_length="5")
many = says(b"a", b"", b"b" * 70000, b"c")
nothing = says(b"")
large = says(*[MEBI] * 4)
missing = says(b"no", status=404)
moved = says(b"", status=301, location="/there")
no_content = says(b"", status=204)
unchanged = says(b"", status=304, etag='"1"')
closes = says(b"x", connection="close")
chunks_by_hand = says(b"x", transfer_encoding="chunked")
too_long = says(b"01234", b"56789", content_length="7")
too_short = says(b"01", b"23", content_length="10")
newline = says(b"x", x_bad="a\r\nb: c")
unfinished = says()


async def cookies(_: Scope, __: Receive, send: Send) -> None:
    await start(send, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"))
    await part(send, b"x", more=False)


async def fails_at_once(*_: Any) -> None:
    raise ValueError("at once")


async def fails_after_start(_: Scope, __: Receive, send: Send) -> None:
    await start(send)
    raise ValueError("after the start")


async def fails_after_part(_: Scope, __: Receive, send: Send) -> None:
    await start(send)
    await part(send, b"part")
    raise ValueError("after a part")


async def fails_after_all(_: Scope, __: Receive, send: Send) -> None:
    await start(send, (b"content-length", b"3"))
    await part(send, b"all", more=False)
    raise ValueError("after all")


async def never_answers(*_: Any) -> None:
    return


async def starts_twice(_: Scope, __: Receive, send: Send) -> None:
    await start(send)
    await start(send)


async def body_first(_: Scope, __: Receive, send: Send) -> None:
    await part(send, b"x")


async def sends_on(_: Scope, __: Receive, send: Send) -> None:
    await start(send, (b"content-length", b"1"))
    await part(send, b"x", more=False)
    await part(send, b"y", more=False)


async def gives_something(_: Scope, __: Receive, send: Send) -> int:
    await start(send, (b"content-length", b"1"))
    await part(send, b"x", more=False)
    return 5


async def body(_: Scope, receive: Receive, send: Send) -> None:
    """Give the body back when it is whole."""
    found = b""
    while (message := await receive())["type"] == "http.request":
        found += message["body"]
        if not message["more_body"]:
            break
    else:
        events.append("disconnected")
        return
    await start(send)
    await part(send, found, more=False)


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """Give the body back as it comes."""
    await start(send)
    while (message := await receive())["type"] == "http.request":
        await part(send, message["body"], more=message["more_body"])
        if not message["more_body"]:
            return


async def unread(_: Scope, __: Receive, send: Send) -> None:
    await start(send)
    await part(send, b"unread", more=False)


async def hears_the_end(_: Scope, receive: Receive, send: Send) -> None:
    """Stream until the client is seen to be gone."""
    await start(send)
    gone = asyncio.create_task(until_gone(receive))
    while not gone.done():
        await part(send, b"0123456789")
        await asyncio.wait([gone], timeout=0.005)
    events.append("disconnected")


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def environment(scope: Scope, _: Receive, send: Send) -> None:
    """Say all of the scope that is the same for every server."""
    known = {
        key: repr(value)
        for key, value in scope.items()
        if key not in ("client", "server", "extensions", "state")
    }
    await start(send)
    await part(send, json.dumps(known, sort_keys=True).encode(), more=False)
