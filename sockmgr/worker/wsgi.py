"""Runs a WSGI application as an ASGI one: a thread answers each request (PEP 3333).

A thread always becomes free again. It waits only for the client to send more or to read on, and the
event loop ends each such wait when the client is gone, when uvicorn refuses the answer, or when the
drain is over. The threads are daemons, so that one that hangs in the application does not keep the
process from ending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import io
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, BinaryIO, TypeVar

from sockmgr.worker.figures import Message, Receive, Send
from sockmgr.worker.wsgi_answer import Answer, ExcInfo
from sockmgr.worker.wsgi_environ import environ_of

log = logging.getLogger("uvicorn.error")

App = Callable[..., Iterable[bytes]]
T = TypeVar("T")

_PIECE = 65536  # bytes of a request's body that are buffered for the application


class GoneError(ConnectionResetError):
    """The client is gone, or the request was abandoned, so nobody wants the answer any more."""

    def __init__(self) -> None:
        super().__init__("the client is gone")


class Wsgi:
    """The ASGI application. At most `threads` requests run at a time, and further ones wait."""

    def __init__(self, app: App, threads: int) -> None:
        self._app = app
        self._threads = _Threads(threads)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(scope, receive, send).serve(self._app, self._threads)
        elif scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:  # a WebSocket, which WSGI does not know
            await receive()
            await send({"type": "websocket.close"})


class _Threads:
    """Runs jobs in at most `limit` threads, in the order in which they come."""

    def __init__(self, limit: int) -> None:
        self._limit, self._started = limit, 0
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job`, which must not raise, as soon as a thread is free.

        Raises RuntimeError if not even one thread can be started.
        """
        self._jobs.put(job)
        if self._idle.acquire(blocking=False) or self._started == self._limit:
            return
        name = f"wsgi-{self._started + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:  # the system allows no more threads
            if not self._started:
                raise
        else:
            self._started += 1

    def _work(self) -> None:
        while True:
            self._jobs.get()()
            self._idle.release()


class _Exchange:
    """One request and its answer, between the event loop and the thread that makes the answer."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._cycle: Any = getattr(receive, "__self__", None)  # uvicorn's RequestResponseCycle
        self._answer = Answer(scope["method"])
        self._error: BaseException | None = None  # what the application raised
        self._abandoned = False
        # What the thread waits for now, or will wait for before it goes on:
        self._waits: set[asyncio.Task[Any] | None] = set()
        self._sending: concurrent.futures.Future[None] | None = None
        # What the event loop waits for:
        self._last: asyncio.Future[list[Message]] = self._loop.create_future()
        self._done: asyncio.Future[None] = self._loop.create_future()

    # --- In the event loop ---------------------------------------------------------------------

    async def serve(self, app: App, threads: _Threads) -> None:
        """Have a thread make the answer, and send it; raise what the application raised."""
        try:
            threads.submit(partial(self._run, app))
            await self._send_what_is_made()
        except GoneError:
            log.debug("the client is gone: %s", self._line)
        except Exception as error:
            _note(error, f"request: {self._line}")
            raise
        finally:
            if self._is_gone:  # uvicorn notices that later or never, and would log an error
                self._cycle.disconnected = True
            self._error = None  # breaks a cycle: its traceback refers to us
            self._abandon()

    async def _send_what_is_made(self) -> None:
        await self._deliver(await self._last)
        await self._done
        if self._sending is not None:
            await asyncio.wrap_future(self._sending)
        if self._error is not None:
            raise self._error

    def _abandon(self) -> None:
        self._abandoned = True
        for task in self._waits:
            if task is not None:
                task.cancel()

    async def _wait(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work that the thread waits for, unless this request is abandoned meanwhile."""
        if self._abandoned:
            raise GoneError
        task = asyncio.current_task()
        self._waits.add(task)
        try:
            return await work()
        finally:
            self._waits.discard(task)

    async def _deliver(self, messages: list[Message]) -> None:
        for message in messages:
            await self._send(message)

    def _end(self, last: list[Message], done: bool) -> None:
        if not self._last.done():
            self._last.set_result(last)
        if done and not self._done.done():
            self._done.set_result(None)

    # --- In the thread -------------------------------------------------------------------------

    def _run(self, app: App) -> None:
        try:
            if not self._is_gone:
                self._context.run(self._respond, app)
        except BaseException as error:  # the application may raise anything, and must not end us
            if not _comes_of_a_client_that_is_gone(error):
                self._error = error
        self._tell([], done=True)

    def _respond(self, app: App) -> None:
        result = app(environ_of(self._scope, self._body()), self._start_response)
        try:
            self._pass_on(result)
        finally:
            if hasattr(result, "close"):
                result.close()

    def _pass_on(self, result: Iterable[bytes]) -> None:
        whole = b""
        if type(result) in (list, tuple):
            whole = b"".join(result)
        else:
            for piece in result:
                self._write(piece)
                if self._answer.is_over:
                    break
        self._give(self._answer.rest(whole))
        if self._answer.missing:
            raise RuntimeError(f"the body is {self._answer.missing} bytes shorter than its length")
        if self._answer.too_long:
            log.warning("the body is longer than its Content-Length, and was cut: %s", self._line)

    def _start_response(
        self,
        status: Any,
        headers: Iterable[tuple[Any, Any]],
        exc_info: ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        self._answer.start(status, headers, exc_info)
        return self._write

    def _write(self, data: bytes) -> None:
        messages = self._answer.more(data)
        # An application that writes without end would not notice otherwise.
        if self._answer.is_over and self._is_gone:
            raise GoneError
        self._give(messages)

    def _give(self, messages: list[Message]) -> None:
        """Have `messages` sent after waiting for those before, so that the client sets the pace."""
        if self._sending is not None:
            _result(self._sending)
        if self._answer.ended:
            if messages:
                self._tell(messages)
            return
        if self._is_gone:
            raise GoneError
        if messages:
            self._sending = self._ask(partial(self._deliver, messages))

    def _body(self) -> BinaryIO:
        names = [name for name, _ in self._scope["headers"]]
        has_one = b"content-length" in names or b"transfer-encoding" in names
        if not has_one and self._scope["http_version"].startswith("1"):
            return io.BytesIO()
        return io.BufferedReader(_Body(self._receive_more), _PIECE)

    def _receive_more(self) -> Message:
        message = _result(self._ask(self._receive))
        if message["type"] != "http.request":
            raise GoneError
        return message

    def _ask(self, work: Callable[[], Awaitable[T]]) -> concurrent.futures.Future[T]:
        if self._abandoned:
            raise GoneError
        return asyncio.run_coroutine_threadsafe(self._wait(work), self._loop)

    def _tell(self, last: list[Message], *, done: bool = False) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits any more
            self._loop.call_soon_threadsafe(self._end, last, done)

    # --- In both -------------------------------------------------------------------------------

    @property
    def _is_gone(self) -> bool:
        # uvicorn's receive() would say so as well, but only after taking the body.
        cycle = self._cycle
        return self._abandoned or cycle.disconnected or cycle.transport.is_closing()

    @property
    def _line(self) -> str:
        scope = self._scope
        path = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        return f"{scope['method']} {path.decode('latin-1')} HTTP/{scope['http_version']}"


class _Body(io.RawIOBase):
    """The body of a request; calls `receive_more` when the application reads on."""

    def __init__(self, receive_more: Callable[[], Message]) -> None:
        self._receive_more = receive_more
        self._has_more = True
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """Return True (called by BufferedReader)."""
        return True

    def readinto(self, room: Any) -> int:
        """Copy what has arrived into `room`, or wait for more; return 0 at the end of the body."""
        while self._has_more and not self._held:
            message = self._receive_more()
            self._held = memoryview(message.get("body", b""))
            self._has_more = message.get("more_body", False)
        taken = self._held[: len(room)]
        room[: len(taken)] = taken
        self._held = self._held[len(taken) :]
        return len(taken)


def _result(future: concurrent.futures.Future[T]) -> T:
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise GoneError from None


def _comes_of_a_client_that_is_gone(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, GoneError):
        error = error.__cause__ or error.__context__
    return error is not None


def _note(error: Exception, note: str) -> None:
    """Show `note` below the traceback, once, even if the same object is raised again and again."""
    notes = getattr(error, "__notes__", [])
    error.__notes__ = [*(each for each in notes if not each.startswith("request: ")), note]
