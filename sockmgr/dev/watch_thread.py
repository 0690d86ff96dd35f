"""One thread in which watchfiles waits for changes in some directories."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Set

from watchfiles import Change, watch

STEP = 10  # milliseconds between two looks of watchfiles for events of the kernel ...
DEBOUNCE = 20  # ... which it reports after a look without a new one, but at the latest after this

Changes = Set[tuple[Change, str]]


class WatchThread:
    """Listens to `paths`, which are directories (without those below them) or files, until `close`.

    `on_changes` is called in the thread, with each set of changes. `begun` is done when the kernel
    watches, or has the error if it refuses; `on_error` is called in the loop for a later error. The
    object is also the stop event of watchfiles, which calls `is_set`.
    """

    def __init__(
        self,
        paths: Iterable[str],
        on_changes: Callable[[Changes], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._paths, self._on_changes, self._on_error = list(paths), on_changes, on_error
        self._loop = asyncio.get_running_loop()
        self._began = self._closing = False
        self.begun: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="listen", daemon=True)
        self._thread.start()

    def is_set(self) -> bool:
        """Return whether to end. Watchfiles asks this once it watches, and after each step."""
        if not self._began:
            self._began = True
            self._loop.call_soon_threadsafe(self._begin)
        return self._closing

    def close(self) -> None:
        """End the thread, which takes as long as a step."""
        self._closing = True
        self._thread.join()

    # Private

    def _run(self) -> None:
        try:
            for changes in watch(
                *self._paths, watch_filter=None, debounce=DEBOUNCE, step=STEP, stop_event=self,
                rust_timeout=0, raise_interrupt=False, force_polling=False, recursive=False,
            ):  # fmt: skip
                self._on_changes(changes)
        # OSError: the kernel refuses. RuntimeError: watchfiles cannot say why. UnicodeError: a name
        # is not UTF-8.
        except (OSError, RuntimeError, UnicodeError) as error:
            self._loop.call_soon_threadsafe(self._fail, error)

    def _begin(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._closing:
            return
        if self.begun.done():
            self._on_error(error)
        else:
            self.begun.set_exception(error)
