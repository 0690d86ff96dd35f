"""`sockmgr top` while it runs: looks once a second, draws, takes keys, and asks the manager.

Owns the terminal while `run` runs, and restores it however `run` ends. Each call that may take long
is made in a daemon thread, so that a manager that hangs cannot delay the end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from rich.console import Console, Group
from rich.live import Live

from sockmgr.api.types import Event
from sockmgr.client.client import Client
from sockmgr.client.connection import LostError, NoManagerError, StillWaitingError
from sockmgr.errors import SockmgrError
from sockmgr.metrics.meter import Meter
from sockmgr.terminal.keys import Keys
from sockmgr.top import requests
from sockmgr.top.requests import Request
from sockmgr.top.screen import frame
from sockmgr.top.view import Place, View, moved, still_chosen

PACE = 1.0  # seconds from one look to the next
EVENTS_MAX = 100  # how many events are kept, for the tallest terminal
_YES = ("y", "Y")

T = TypeVar("T")


class Looker:
    """Looks at a manager and its workers, and remembers the events it saw; its calls block."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._meter = Meter()
        self._events: list[Event] = []
        self._newest: int | None = None

    def look(self) -> View:
        """Return a view of this instant; raise SockmgrError if no manager answers."""
        status = self._client.status(sizes=False)
        happened = self._client.events(after=self._newest, last=EVENTS_MAX)
        self._events = [*self._events, *happened.events][-EVENTS_MAX:]
        self._newest = happened.newest
        manager, usage = self._meter.measure(status)
        return View(
            name=self._client.path.stem,
            status=status,
            manager=manager,
            usage=usage,
            events=tuple(self._events),
            clock=time.strftime("%H:%M:%S"),
        )


class Top:
    """One live view. `run` returns the exit code."""

    def __init__(self, client: Client, looker: Looker, view: View, terminal: int) -> None:
        """Begin with `view`; read keys from the descriptor `terminal`, which is borrowed."""
        self._client, self._looker, self._view = client, looker, view
        self._terminal = terminal
        self._console = Console()
        self._asked: Request | None = None
        self._live: Live | None = None

    async def run(self) -> int:
        """Draw and take keys until the user or a signal ends it; return the exit code."""
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = loop.create_future()
        self._keys = Keys(self._terminal, self._pressed, lambda: self._end(1))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            code = 0 if number == signal.SIGINT else 128 + number
            loop.add_signal_handler(number, self._end, code)
        loop.add_signal_handler(signal.SIGWINCH, self._draw)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        try:
            self._take_screen()
            async with asyncio.TaskGroup() as tasks:
                looking = tasks.create_task(self._look_again_and_again(), name="look")
                code = await self._ended
                looking.cancel()
        finally:
            self._give_screen_back()
        return code

    # --- The terminal ----------------------------------------------------------------------------

    def _take_screen(self) -> None:
        self._keys.open()
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False,
            redirect_stderr=False,
        )  # fmt: skip
        self._live.start()
        self._draw()

    def _give_screen_back(self) -> None:
        live, self._live = self._live, None
        with contextlib.suppress(OSError):  # hung up
            if live is not None:
                live.stop()
        self._keys.close()

    def _suspend(self) -> None:
        """Leave the terminal to the shell from Ctrl-Z until `fg`."""
        loop = asyncio.get_running_loop()
        self._give_screen_back()
        loop.remove_signal_handler(signal.SIGTSTP)
        # Not SIGSTOP: the kernel ignores SIGTSTP where no shell could continue us.
        os.kill(os.getpid(), signal.SIGTSTP)
        while not self._keys.in_foreground and not self._keys.hung_up:  # bg
            os.kill(os.getpid(), signal.SIGSTOP)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        self._take_screen()

    def _draw(self) -> None:
        if self._live is None:
            return
        width, height = self._console.size
        try:
            self._live.update(Group(*frame(self._view, width, height)), refresh=True)
        except OSError:  # EIO: hung up
            self._end(1)

    def _end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    # --- Looking ---------------------------------------------------------------------------------

    async def _look_again_and_again(self) -> None:
        while True:
            began = time.monotonic()
            try:
                seen = await _in_thread(self._looker.look)
            except SockmgrError as error:
                self._view = replace(self._view, trouble=_trouble(error))
            else:
                was = self._view
                chosen = still_chosen(was.status, seen.status, was.chosen)
                self._view = replace(seen, chosen=chosen, said=was.said, question=was.question)
            self._draw()
            await asyncio.sleep(max(0.0, began + PACE - time.monotonic()))

    # --- Keys ------------------------------------------------------------------------------------

    def _pressed(self, key: str) -> None:
        if self._ended.done():
            return  # keys typed after q are not meant for us
        if self._asked is not None:
            self._answered(yes=key in _YES)
        else:
            self._steer(key)
        self._draw()

    def _steer(self, key: str) -> None:
        steps = {"up": -1, "k": -1, "down": 1, "j": 1}
        if key == "q":
            self._end(0)
        elif key in steps:
            chosen = moved(self._view.status, self._view.chosen, steps[key])
            self._view = replace(self._view, chosen=chosen)
        elif key in "r+-w":
            self._begin(key)

    def _begin(self, key: str) -> None:
        status = self._view.status
        place = self._view.chosen or moved(status, None, 0)
        request = _request(key, place, self._view) if place else "no service runs"
        if isinstance(request, str):
            self._say(request)
            return
        self._asked = request
        self._view = replace(self._view, question=f"{request.question} (y/n)", said="")

    def _answered(self, *, yes: bool) -> None:
        request, self._asked = self._asked, None
        self._view = replace(self._view, question="", said="" if yes else "nothing was done")
        if yes and request is not None:
            loop = asyncio.get_running_loop()

            def say(text: str) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: we have ended
                    loop.call_soon_threadsafe(self._say, text)

            _begin_thread(lambda: say(_performed(request, self._client, say)))

    def _say(self, text: str) -> None:
        self._view = replace(self._view, said=text)
        self._draw()


def _trouble(error: SockmgrError) -> str:
    match error:
        case NoManagerError() | LostError():
            return "no manager answers; waiting for the next one"
        case StillWaitingError():
            return "the manager does not answer in time"
        case _:
            return error.what


def _request(key: str, place: Place, view: View) -> Request | str:
    match key:
        case "r":
            return requests.reload(place)
        case "w":
            return requests.restart(place)
        case _:
            return requests.scale(place, view.status, 1 if key == "+" else -1)


def _performed(request: Request, client: Client, say: requests.Say) -> str:
    try:
        return request.perform(client, say)
    except SockmgrError as error:
        return f"{error.what}; {error.means}" if error.means else error.what


# --- Threads -------------------------------------------------------------------------------------


def _begin_thread(main: Callable[[], None]) -> None:
    # Not an executor: Python waits at its exit for the threads of an executor, not for daemons.
    threading.Thread(target=main, name="asks the manager", daemon=True).start()


async def _in_thread(function: Callable[[], T]) -> T:
    """Call `function` in a daemon thread; return what it returns, or raise what it raises."""
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
    outcome.set_running_or_notify_cancel()  # from now on it cannot be cancelled, only set

    def main() -> None:
        try:
            outcome.set_result(function())
        except Exception as error:  # the caller, who waits, raises it again
            outcome.set_exception(error)

    _begin_thread(main)
    return await asyncio.wrap_future(outcome)
