"""Lets the application know that this process has begun to end. Never taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

EXTENSION = "sockmgr.draining"  # in the scope of a request or a WebSocket

_begun = False
_waiting: set[asyncio.Future[None]] = set()


def draining() -> bool:
    """Return whether this program has begun to end: whether stopping() has been called.

    The runtime calls that at TERM. An answer that lasts until the client leaves, such as a stream
    of events, should end then, or it is cut off at the deadline of the drain. May be called in any
    thread.
    """
    return _begun


async def until_draining() -> None:
    """Wait until draining() is true, in the running event loop of asyncio."""
    import asyncio  # noqa: PLC0415 - most programs that import this package need no event loop

    if _begun:
        return
    future = asyncio.get_running_loop().create_future()
    _waiting.add(future)
    try:
        if not _begun:  # another thread may have begun since the first look
            await future
    finally:
        _waiting.discard(future)


def begin() -> None:
    """Note that this process has begun to end, and wake the tasks that wait. For any thread."""
    global _begun  # noqa: PLW0603 - a fact of the process
    _begun = True
    for future in tuple(_waiting):
        future.get_loop().call_soon_threadsafe(_wake, future)


def extension() -> dict[str, Any]:
    """Return draining() and until_draining() for a scope, for code that does not import us."""
    return {"is_set": draining, "wait": until_draining}


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
