"""Collects the metrics of a manager at each scrape, and does nothing in between. Owns nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CollectorRegistry, Metric

from sockmgr.client.client import Client
from sockmgr.errors import SockmgrError
from sockmgr.metrics import families

if TYPE_CHECKING:
    from sockmgr.metrics.meter import Meter


class StatusCollector:
    """Asks the manager that `find` finds at each scrape, since it may be another one each time.

    With `processes`, measures what the manager and its workers use. `say` is called when a manager
    begins or ceases to answer. `trouble` is the error of the last scrape, None if it had an answer.
    """

    def __init__(
        self, find: Callable[[], Client], *, processes: bool, say: Callable[[str], None]
    ) -> None:
        self.trouble: SockmgrError | None = None
        self._find, self._say = find, say
        self._meter: Meter | None = None
        if processes:
            from sockmgr.metrics.meter import Meter  # noqa: PLC0415 - needs psutil: loads slowly

            self._meter = Meter()
        self._lock = threading.Lock()

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def describe(self) -> Iterator[Metric]:
        """Yield all metrics without values, so that a scrape can choose some by name.

        The registry calls this, and no manager is asked for it.
        """
        yield from families.known()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment; without an answer, only `sockmgr_up 0`."""
        try:
            status = self._find().status(sizes=False)
        except SockmgrError as error:
            self._note(error)
            yield families.up(answers=False)
            return
        self._note(None)
        yield families.up(answers=True)
        yield from families.of(status)
        if self._meter:
            with self._lock:  # the meter keeps the values of the last scrape
                manager, workers = self._meter.measure(status)
            yield from families.of_processes(status, manager, workers)

    def _note(self, trouble: SockmgrError | None) -> None:
        with self._lock:
            was, self.trouble = self.trouble, trouble
        if trouble and (was is None or was.what != trouble.what):
            self._say(f"sockmgr_up is 0: {trouble.what}")
        elif was and not trouble:
            self._say("sockmgr_up is 1: a manager answers")
