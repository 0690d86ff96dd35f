"""Logs how it goes with a service, where nobody waits for it to be told."""

from __future__ import annotations

from sockmgr.api.figures import Comparison
from sockmgr.api.records import EventKind
from sockmgr.fleet.messages import CanaryPassed, CanaryStep, Recycled, Serving, WaitedInVain
from sockmgr.log import Log

log = Log("sockmgr")

News = Serving | CanaryStep | CanaryPassed | WaitedInVain | Recycled


def tell(service: str, news: News, found: Comparison | None) -> None:
    """Log it, with what was `found` of a canary."""
    compared = {"compared": str(found)} if found else {}
    match news:
        case Serving():
            log.info(EventKind.SERVING, service=service, generation=news.generation)
        case WaitedInVain():
            log.warning(EventKind.WAITED_IN_VAIN, service=service, means="it starts anyway")
        case Recycled():
            _tell_recycled(service, news)
        case CanaryStep():
            step = f"{news.step + 1}/{news.steps}"
            log.info(EventKind.CANARY_STEP, service=service, generation=news.generation,
                     share=f"{news.share} %", step=step, **compared)  # fmt: skip
        case CanaryPassed():
            log.info(EventKind.CANARY_PASSED, service=service, generation=news.generation,
                     **compared)  # fmt: skip


def _tell_recycled(service: str, news: Recycled) -> None:
    name = f"{service}@{news.worker}"
    log.info(EventKind.WORKER_RECYCLED, worker=name, limit=news.limit, why=news.why)
    if news.early == 1:  # once, until one has served for longer
        log.warning(
            EventKind.RECYCLING_SLOWED_DOWN, service=service, generation=news.worker.generation,
            because=f"{news.why}, as soon as {name} was ready",
            means=f"the next one is recycled in {news.pause:g} s at the soonest, and ever later",
        )  # fmt: skip
