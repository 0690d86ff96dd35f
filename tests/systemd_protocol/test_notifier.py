"""When the watchdog is fed, what a status may hold, and how long the end waits for a reader."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from sockmgr.systemd.notifier import LONGEST_STATUS, Notifier
from tests.helpers.fake_systemd import FakeSystemd

INTERVAL = {"WATCHDOG_USEC": "100000"}


class Subject:
    """A manager that is as a test wants it."""

    def __init__(self) -> None:
        self.line = "web: fine"
        self.until = 0.0
        self.wrong = ""
        self.looks = 0
        self.looked = asyncio.Event()

    def headline(self) -> str:
        return self.line

    def busy_until(self) -> float:
        return self.until

    def flaw(self) -> str:
        self.looks += 1
        self.looked.set()
        return self.wrong

    async def looked_at(self, times: int) -> None:
        """Wait until it was asked so many times more for what is wrong."""
        for _ in range(times):
            self.looked.clear()
            await self.looked.wait()


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that knows how often it was asked to call later."""

    timers = 0

    def call_at(self, *args: Any, **more: Any) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_at(*args, **more)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSystemd]:
    with FakeSystemd(tmp_path) as found:
        monkeypatch.setenv("NOTIFY_SOCKET", str(found.path))
        yield found


def run(main: Coroutine[None, None, None]) -> int:
    """Run `main`; return how often something was to be called later."""
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(main)
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        return loop.timers


@pytest.mark.parametrize(("limit", "flaw"), [("2", ""), ("1", " (fd store full: 2 of 1 ")])
def test_the_status_says_what_the_next_manager_would_miss(
    systemd: FakeSystemd, limit: str, flaw: str
) -> None:
    notifier = Notifier(Subject(), os.environ | {"FDSTORE": limit})
    assert notifier.store is not None
    with socket.socket() as first, socket.socket() as second:
        notifier.store.keep("http#0", [first.fileno(), second.fileno()])
    notifier.changed()
    notifier.close()
    assert f"web: fine{flaw}" in systemd.status
    assert ("fd store full" in systemd.status) == bool(flaw)


@pytest.mark.usefixtures("systemd")
def test_a_unit_whose_fd_store_holds_nothing_has_none() -> None:
    assert Notifier(Subject(), os.environ | {"FDSTORE": "0"}).store is None


# --- The watchdog --------------------------------------------------------------------------------


def test_the_watchdog_is_not_fed_while_something_is_wrong(
    systemd: FakeSystemd, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        subject = Subject()
        notifier = Notifier(subject, os.environ | INTERVAL)
        notifier.serving()
        await subject.looked_at(2)
        subject.wrong = "listener http does not listen"
        await subject.looked_at(5)
        notifier.stopping()  # a mark in the order of what systemd reads
        subject.wrong = ""
        await subject.looked_at(1)
        notifier.close()

    with caplog.at_level(logging.INFO):
        run(main())
    told = [next(iter(told.fields)) for told in systemd.told]
    assert told == ["READY", "WATCHDOG", "WATCHDOG", "STOPPING", "WATCHDOG", "BARRIER"]
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ERROR", "watchdog not fed because='listener http does not listen'"),
        ("INFO", "watchdog fed again was='listener http does not listen'"),
    ]


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "9" * 5000},
        {**INTERVAL, "WATCHDOG_PID": "1"},
    ],
    ids=["no watchdog", "none", "nonsense", "of no number", "of another process"],
)
def test_without_a_watchdog_of_ours_nothing_is_to_be_called_later(
    env: dict[str, str], systemd: FakeSystemd
) -> None:
    async def main() -> None:
        notifier = Notifier(Subject(), os.environ | env)
        notifier.serving()
        notifier.close()

    assert run(main()) == 0
    assert len(systemd.told) == 2


def test_without_systemd_nothing_is_told_and_nothing_is_to_be_called_later(
    systemd: FakeSystemd,
) -> None:
    async def main() -> None:
        notifier = Notifier(Subject(), INTERVAL)
        notifier.serving()
        notifier.changed()
        with notifier.reloading() as ended:
            ended([])
        notifier.stopping()
        notifier.close()

    assert run(main()) == 0
    assert not systemd.told


def test_the_watchdog_of_this_very_process_is_fed_until_the_end(systemd: FakeSystemd) -> None:
    async def main() -> None:
        subject = Subject()
        notifier = Notifier(subject, os.environ | INTERVAL | {"WATCHDOG_PID": str(os.getpid())})
        notifier.serving()
        notifier.stopping()
        await subject.looked_at(2)
        notifier.close()

    assert run(main()) == 2 + 1
    assert len(systemd.having("WATCHDOG")) == 2


# --- Time that a deadline allows -----------------------------------------------------------------


def test_time_is_asked_for_once_for_each_later_deadline_and_only_while_something_waits(
    systemd: FakeSystemd,
) -> None:
    async def main() -> None:
        subject = Subject()
        notifier = Notifier(subject)
        subject.until = time.monotonic() + 100
        notifier.changed()  # a drain that nobody waits for
        notifier.stopping()
        notifier.changed()
        notifier.changed()
        subject.until += 50
        notifier.changed()
        subject.until -= 100
        notifier.changed()
        notifier.close()

    run(main())
    asked = [int(t.fields["EXTEND_TIMEOUT_USEC"]) for t in systemd.having("EXTEND_TIMEOUT_USEC")]
    assert [round(usec / 1e6) for usec in asked] == [105, 155]


# --- Words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("two\nREADY=1\tlines", "two READY=1 lines"),
        ("no \0 and \udcff", "no ? and ?"),
        ("ü" * LONGEST_STATUS, "ü" * (LONGEST_STATUS // 2)),
    ],
    ids=["newline", "not UTF-8", "long"],
)
def test_a_status_is_one_short_line_of_text(line: str, told: str, systemd: FakeSystemd) -> None:
    async def main() -> None:
        subject = Subject()
        subject.line = line
        notifier = Notifier(subject)
        notifier.changed()
        notifier.close()

    run(main())
    assert systemd.told[0].fields == {"STATUS": told}


# --- The end -------------------------------------------------------------------------------------


def test_the_end_waits_until_systemd_has_read_everything(systemd: FakeSystemd) -> None:
    systemd.hold()
    end = threading.Thread(target=Notifier(Subject()).close, args=(60,))
    end.start()
    systemd.wait("BARRIER")
    assert end.is_alive()
    systemd.let_go()
    end.join(10)
    assert not end.is_alive()


def test_the_end_does_not_wait_for_ever(systemd: FakeSystemd) -> None:
    systemd.hold()
    Notifier(Subject()).close(0.05)
    systemd.wait("BARRIER")


def test_no_descriptor_is_left_of_a_barrier(systemd: FakeSystemd) -> None:
    notifier = Notifier(Subject())
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        notifier.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert len(systemd.having("BARRIER")) == 5
