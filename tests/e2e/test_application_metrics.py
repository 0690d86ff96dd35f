"""What an application counts itself, summed up over reloads, deaths and managers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.applications import config
from tests.e2e.apps import App
from tests.e2e.exporter import Exporter, samples
from tests.e2e.harness import Manager, wait_for
from tests.helpers.asking import ask

COUNTING = """
from prometheus_client import Counter, Gauge, Histogram
from app import app as well
REQUESTS = Counter("shop_requests", "Requests.", ["path"])
TIMES = Histogram("shop_times_seconds", "How long.")
WORKERS = Gauge("shop_workers", "Workers that live.", multiprocess_mode="livesum")
async def app(scope, receive, send):
    WORKERS.set(1)
    if scope["type"] == "http":
        REQUESTS.labels(scope["path"]).inc()
        TIMES.observe(0.1)
    await well(scope, receive, send)
"""
REQUESTS = 'shop_requests_total{path="/",service="web"}'
WORKERS = 'shop_workers{service="web"}'


def counting(directory: Path, more: str) -> str:
    app = App("asgi", directory)
    (app.directory / "counting.py").write_text(COUNTING)
    text = config(app, target="counting:app", more=f"prometheus_multiproc = true\n{more}")
    return text.replace("[service.web.rollout]", "[service.web.rollout]\nprobation = 0")


def files(manager: Manager) -> set[str]:
    directory = manager.control.with_suffix(".metrics") / "web"
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


def owners(manager: Manager) -> set[str]:
    return {name.removesuffix(".db").rpartition("_")[2] for name in files(manager)} - {"ended"}


def strangers(manager: Manager) -> set[str]:
    """Return whose files are there beside those of workers that live, and beside the sums."""
    return owners(manager) - {str(worker["pid"]) for worker in manager.workers()}


@contextmanager
def scraped(exporter: Exporter) -> Iterator[list[float]]:
    """Scrape all the time; the counter's values come one after the other."""
    seen: list[float] = []
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(0.05):
            seen.append(exporter.scrape().get(REQUESTS, 0))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("more", "reloads", "templates"),
    # A template has files as well, and one that has ended until the next worker does.
    [("", 20, 0), ('preload = true\naccept = "dispatch"', 3, 2)],
)
def test_counters_never_fall_and_files_do_not_pile_up(
    more: str, reloads: int, templates: int, tmp_path: Path
) -> None:
    asked = 0
    with (
        Manager(tmp_path, counting(tmp_path, more)) as manager,
        Exporter(
            "--control", str(manager.control), "--listen", "127.0.0.1:0", "--application"
        ) as exporter,
        scraped(exporter) as seen,
    ):

        def serve() -> None:
            nonlocal asked
            for _ in range(5):
                ask(manager.target())
                asked += 1

        for _ in range(reloads):
            serve()
            assert manager.reload().code == 0
        killed = manager.workers()[-1]["pid"]
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: manager.events("worker ended", pid=str(killed)), "the kill to be seen")
        manager.wait_serving()
        serve()
        wait_for(lambda: len(manager.workers()) == 2, "the old workers to end")
        wait_for(lambda: len(strangers(manager)) <= templates, "files to be merged")
        wait_for(lambda: exporter.scrape()[WORKERS] == 2, "the dead to be no gauge any more")
        found = exporter.scrape()
        assert found[REQUESTS] == asked
        assert found['shop_times_seconds_count{service="web"}'] == asked
        # A manager that is killed, and a worker that dies before the next one is there.
        victim = manager.workers()[0]["pid"]
        manager.kill9()
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: exporter.scrape()[REQUESTS] == asked, "they count on without a manager")
        manager.start()
        manager.wait_serving()
        serve()
        wait_for(
            lambda: str(victim) not in owners(manager), "the file of the dead one to be merged"
        )
        assert exporter.scrape()[REQUESTS] == asked
        assert manager.run("upgrade").code == 0
        serve()
        assert exporter.scrape()[REQUESTS] == asked
        directory = manager.control.with_suffix(".metrics")
    assert seen == sorted(seen)
    assert seen[-1] > 0
    assert not directory.exists()
    assert "not merged" not in manager.log


def test_a_service_is_told_apart_by_its_label(tmp_path: Path) -> None:
    with Manager(tmp_path, counting(tmp_path, "")) as manager:
        ask(manager.target())
        printed = manager.say("metrics", "--application").stdout
        assert samples(printed)[REQUESTS] == 1
        assert "sockmgr_up" in printed
        assert "shop_requests" not in manager.say("metrics").stdout
