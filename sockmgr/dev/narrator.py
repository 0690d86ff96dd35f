"""Shows the developer, on the screen and on the error pages, how each generation fared.

Owns the error pages, and the thread that draws. Decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sockmgr.api.types import Status, Verdict
from sockmgr.dev import banner, page, traceback
from sockmgr.dev.failure import Failure
from sockmgr.dev.pages import Pages
from sockmgr.dev.rules import Rules
from sockmgr.dev.screen import BOLD, GREEN, RED, YELLOW, Screen


class Narrator:
    """Remembers what it has shown for each service, so that it shows nothing twice.

    `rules` returns the rules of now, by which paths are shown.
    """

    def __init__(self, screen: Screen, rules: Callable[[], Rules]) -> None:
        self._screen, self._rules = screen, rules
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self.pages = Pages()
        self._shown: dict[str, Failure] = {}
        self._said: set[str] = set()

    def close(self) -> None:
        """Drop the pages, and do not wait for a drawing."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.pages.close()

    def serving(
        self,
        service: str,
        number: int,
        addresses: Sequence[str],
        seconds: float,
        paths: Sequence[str] = (),
    ) -> None:
        """Show that a service serves for the first time: generation `number`, after `seconds`."""
        self._announce(banner.serving(service, number, addresses, seconds), paths, GREEN)
        self._shown.pop(service, None)

    def reloaded(self, verdict: Verdict, before: int, seconds: float, paths: Sequence[str]) -> None:
        """Show that the verdict's generation took over from `before`, because `paths` changed."""
        text = banner.reloaded(verdict.service, before, verdict.generation, seconds)
        self._announce(text, paths, GREEN)
        self._shown.pop(verdict.service, None)

    def failed(self, verdict: Verdict, kept: str, paths: Sequence[str]) -> None:
        """Show that a generation did not get ready, after its failure has been shown."""
        self._announce(f"{verdict.service} {verdict.generation} failed: {kept}", paths, RED)

    def chasing(self, paths: Sequence[str]) -> None:
        """Show that the application seems to change these files at each of its starts."""
        names = banner.some(self._names(paths))
        self.once(f"every start seems to change {names}: reloads pause; leave it out by dev.ignore")

    def once(self, text: str, *styles: int) -> None:
        if text not in self._said:
            self._said.add(text)
            self._screen.say(text, *(styles or (YELLOW,)))

    def status(self, status: Status) -> None:
        for line in banner.status(status):
            self._screen.say(line)

    async def show(self, service: str, failure: Failure) -> None:
        """Show why a generation of `service` failed, on the screen and on its error page."""
        loop = asyncio.get_running_loop()
        again = self._shown.get(service) == failure
        self._shown[service] = failure
        rules, width, lively = self._rules(), self._screen.width, self._screen.lively
        if not again:
            draw = partial(traceback.render, failure, rules, width=width, lively=lively)
            self._screen.write(await loop.run_in_executor(self._thread, draw))
        subject = page.Subject(
            service=service, failure=failure, rules=rules, context=traceback.lines_around
        )
        written = await loop.run_in_executor(self._thread, page.render, subject)
        self.pages.put(service, written)

    # Private

    def _announce(self, text: str, paths: Sequence[str], colour: int) -> None:
        files = banner.files(self._names(paths), self._screen.width - len(text))
        self._screen.say(text + files, colour, BOLD)

    def _names(self, paths: Sequence[str]) -> list[str]:
        rules = self._rules()
        return [rules.shown(path) for path in paths]
