"""The figures of this process: how many requests it got, how many failed, how long they took.

They are counted in the memory of its heartbeat (heartbeat.py), so the manager can read them at any
time, and nobody is woken. The time of a request goes from where the application gets it to where it
hands over the head of its answer: it is that of the application, whatever the client does, and an
answer that streams for an hour is not slow. The handshake of a WebSocket is a request as well: its
answer is that it is accepted or refused, and what follows is not looked at.

A request has failed if its answer has a status of 5xx, or if the application raised an error or
ended without an answer, while the client was there.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic_ns
from typing import Any

from sockmgr.worker import heartbeat

VARIABLE = "SOCKMGR_FIGURES"  # the number of the descriptor
# Words of the memory: the last one of the heartbeat says by the number LAYOUT that these are
# written: requests begun, those of them that failed, and the histogram of how long they took.
LAYOUT = 1
MARK, BEGUN, FAILED, TIMES = range(3, 7)
# A bucket of the histogram is an eighth of a power of two wide, so a time that is read from it is
# true within 6 %. The first 16 are as wide as the narrowest of these, 8 us, and the last has all
# that took longer than 129 s.
BUCKETS = 176
SIZE = 8 * (TIMES + BUCKETS)
_LEADING = 4  # bits of a time, from its first one on, that tell its bucket
_FINEST = 13  # bits of a nanosecond count that are below the narrowest bucket
_LONGEST = (1 << 37) - 1
_NONE = 101  # a WebSocket that is accepted or closed has no status in its message

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def least_of(bucket: int) -> int:
    """Return the shortest time in a bucket, in nanoseconds."""
    if bucket < 16:
        return bucket << _FINEST
    return 8 + (bucket & 7) << (bucket >> 3) - 1 + _FINEST


class OwnFigures:
    """The figures of one worker. It counts for itself until it has a memory to share."""

    def __init__(self) -> None:
        self._words = memoryview(bytearray(SIZE)).cast("q")

    def share(self) -> None:
        """Count in the memory that the manager gave, from now on; do nothing if it gave none.

        To be called in the process that serves, once. The descriptor stays open, because the next
        manager finds the memory by it.
        """
        number = os.environ.get(VARIABLE, "")
        if not number.isdecimal() or not heartbeat.is_memory(int(number)):
            return
        os.set_inheritable(int(number), False)
        try:
            self._words = memoryview(mmap.mmap(int(number), SIZE)).cast("q")
        except ValueError:  # it is smaller: of a manager that knows nothing of figures
            return
        self._words[MARK] = LAYOUT

    def counted(self, app: App) -> App:
        """Return `app`, with its requests counted. All of that takes about a microsecond each."""

        async def serve(scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await app(scope, receive, send)
                return
            words, began = self._words, monotonic_ns()
            status: Any = 0
            words[BEGUN] += 1

            def sending(message: Message) -> Awaitable[None]:
                nonlocal status
                if not status:  # the first message is the head of the answer, of whatever kind
                    status = message.get("status")
                    status = status if isinstance(status, int) and status else _NONE
                    _count(words, monotonic_ns() - began, has_failed=status >= 500)
                return send(message)

            try:
                await app(scope, receive, sending)
            except Exception:
                if 0 < status < 500 and not _is_gone(receive):  # it broke off
                    words[FAILED] += 1
                raise
            finally:
                if not status:  # uvicorn answers with 500, if anybody is there
                    _count(words, monotonic_ns() - began, has_failed=not _is_gone(receive))

        return serve


def _count(words: memoryview[int], time: int, *, has_failed: bool) -> None:
    below = time.bit_length() - _LEADING
    if below < _FINEST:
        below = _FINEST
    elif time > _LONGEST:
        time, below = _LONGEST, _LONGEST.bit_length() - _LEADING
    words[TIMES + (below - _FINEST << 3) + (time >> below)] += 1
    if has_failed:
        words[FAILED] += 1


def _is_gone(receive: Receive) -> bool:
    """Return whether uvicorn has noticed that the client has gone."""
    return bool(getattr(getattr(receive, "__self__", None), "disconnected", False))
