"""One thread in which watchfiles waits for changes in some directories, and tells the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Set

from watchfiles import Change, watch

STEP = 10  # milliseconds: watchfiles looks that often whether the kernel told it something ...
DEBOUNCE = 20  # ... and tells us when a step brought nothing new, but not later than after these

Changes = Set[tuple[Change, str]]


class Listening:
    """Hears what happens to the names in `paths` (directories), and to single files, till `close`.

    `heard` is called in the thread; `failed` in the loop, after `begun` had come to be.
    Directories below are not heard. It is the stop event of watchfiles as well.
    """

    def __init__(
        self,
        paths: Iterable[str],
        heard: Callable[[Changes], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._paths, self._heard, self._failed = list(paths), heard, failed
        self._loop = asyncio.get_running_loop()
        self._began = self._closing = False
        self.begun: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="listen", daemon=True)
        self._thread.start()

    def is_set(self) -> bool:
        """Tell watchfiles whether to end; it asks once it watches, and then after each step."""
        if not self._began:
            self._began = True
            self._loop.call_soon_threadsafe(self._begin)
        return self._closing

    def close(self) -> None:
        """Hear no more. Takes as long as a step."""
        self._closing = True
        self._thread.join()

    # Private

    def _run(self) -> None:
        try:
            for changes in watch(
                *self._paths, watch_filter=None, debounce=DEBOUNCE, step=STEP, stop_event=self,
                rust_timeout=0, raise_interrupt=False, force_polling=False, recursive=False,
            ):  # fmt: skip
                self._heard(changes)
        # What the kernel refuses, what watchfiles cannot name (RuntimeError: its own), and names
        # that are no UTF-8.
        except (OSError, RuntimeError, UnicodeError) as error:
            self._loop.call_soon_threadsafe(self._fail, error)

    def _begin(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._closing:
            return
        if self.begun.done():
            self._failed(error)
        else:
            self.begun.set_exception(error)
