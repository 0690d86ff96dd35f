"""Who is at low priority while it boots, who is raised before it serves, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from sockmgr.kernel import priority
from sockmgr.kernel.priority import Demand
from sockmgr.manager.workers import boot_priority
from sockmgr.manager.workers.boot_priority import LOOK, Boots, starve

FAST = 0.001
CORES = 2


@dataclass
class Kernel:
    """What the kernel does for processes 1, 2, ... `demands` are added up at each look."""

    low: set[int] = field(default_factory=set)
    low_sessions: set[int] = field(default_factory=set)
    demands: dict[int, Demand] = field(default_factory=dict)
    total: dict[int, Demand] = field(default_factory=dict)
    refusals: int = 0
    looks: int = 0

    def lower(self, pid: int) -> None:
        self.low.add(pid)

    def restore(self, pid: int) -> None:
        self.low.discard(pid)

    def is_low(self, pid: int) -> bool:
        return pid in self.low

    def lower_session(self, pid: int) -> bool:
        self.low_sessions.add(pid)
        return True

    def restore_session(self, pid: int) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        self.low_sessions.discard(pid)
        return True

    def demand(self, pid: int) -> Demand:
        self.looks += 1
        more, before = self.demands.get(pid, Demand(0, 0)), self.total.get(pid, Demand(0, 0))
        self.total[pid] = Demand(before.ran + more.ran, before.waited + more.waited)
        return self.total[pid]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    fake = Kernel()
    for name in ("lower", "restore", "is_low", "lower_session", "restore_session", "demand"):
        monkeypatch.setattr(priority, name, getattr(fake, name))
    monkeypatch.setattr(boot_priority, "AGAIN", FAST)
    monkeypatch.setattr("sockmgr.kernel.processors.available", lambda: CORES)
    return fake


async def until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not fact():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(FAST)


def begun(boots: Boots, *pids: int, timeout: float = 1000.0) -> list[boot_priority.BootPriority]:
    return [boots.begin(f"web@1.{n}", n, timeout, True) for n in pids]


def test_a_boot_is_low_until_it_is_over(kernel: Kernel) -> None:
    async def scenario() -> None:
        (boot,) = begun(Boots(asyncio.get_running_loop(), can_lower=True), 1)
        assert kernel.low == kernel.low_sessions == {1}
        boot.over()
        assert kernel.low == kernel.low_sessions == set()

    asyncio.run(scenario())


def test_no_boot_is_lowered_that_could_not_be_raised_again(kernel: Kernel) -> None:
    async def scenario() -> None:
        begun(Boots(asyncio.get_running_loop(), can_lower=False), 1)
        assert kernel.low == kernel.low_sessions == set()

    asyncio.run(scenario())


def test_a_boot_that_another_manager_lowered_is_raised_when_it_is_over(kernel: Kernel) -> None:
    kernel.low, kernel.low_sessions = {1}, {1}

    async def scenario() -> None:
        boots = Boots(asyncio.get_running_loop(), can_lower=True)
        adopted = boots.begin("web@1.1", 1, 60.0, False)
        assert kernel.low == {1}
        adopted.over()
        assert kernel.low == kernel.low_sessions == set()

    asyncio.run(scenario())


def test_a_worker_that_serves_and_was_left_low_is_raised_at_once(kernel: Kernel) -> None:
    kernel.low, kernel.low_sessions = {1}, {1}

    async def scenario() -> None:
        Boots(asyncio.get_running_loop(), can_lower=True).begin("web@1.1", 1, 0.0, False)
        assert kernel.low == kernel.low_sessions == set()

    asyncio.run(scenario())


def test_a_process_that_is_gone_is_not_touched(kernel: Kernel) -> None:
    async def scenario() -> None:
        (boot,) = begun(Boots(asyncio.get_running_loop(), can_lower=True), 1)
        boot.forget()
        boot.over()
        assert kernel.low == {1}

    asyncio.run(scenario())


def test_a_session_that_the_kernel_does_not_restore_at_once_is_restored_later(
    kernel: Kernel,
) -> None:
    async def scenario() -> None:
        (boot,) = begun(Boots(asyncio.get_running_loop(), can_lower=True), 1)
        kernel.refusals = 3
        boot.over()
        assert kernel.low_sessions == {1}
        await until(lambda: not kernel.low_sessions)

    asyncio.run(scenario())


def test_boots_that_get_nothing_are_raised_one_at_a_time_the_furthest_first(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot_priority, "LOOK", FAST)
    kernel.demands = {n: Demand(n / 1e6, 1.0) for n in (1, 2, 3)}

    async def scenario() -> None:
        first, second, third = begun(Boots(asyncio.get_running_loop(), can_lower=True), 1, 2, 3)
        await until(lambda: kernel.low == {1, 2})
        looks = kernel.looks
        await until(lambda: kernel.looks > looks + 10)
        assert kernel.low == {1, 2}
        third.over()
        assert kernel.low == {1}
        second.forget()
        assert kernel.low == set()
        first.over()

    asyncio.run(scenario())


def test_boots_that_starve_on_beside_a_raised_one_are_raised_after_a_while(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot_priority, "LOOK", FAST)
    monkeypatch.setattr(boot_priority, "STEP", 5 * FAST)
    kernel.demands = {n: Demand(n / 1e6, 1.0) for n in (1, 2, 3)}

    async def scenario() -> None:
        begun(Boots(asyncio.get_running_loop(), can_lower=True), 1, 2, 3)
        for low in ({1, 2}, {1}, set[int]()):
            await until(lambda low=low: kernel.low == low)

    asyncio.run(scenario())


def test_boots_that_get_on_are_not_raised(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot_priority, "LOOK", FAST)
    kernel.demands = {n: Demand(FAST / 2, 1.0) for n in (1, 2)}

    async def scenario() -> None:
        boots = begun(Boots(asyncio.get_running_loop(), can_lower=True), 1, 2)
        await until(lambda: kernel.looks > 50)
        assert kernel.low == {1, 2}
        for boot in boots:
            boot.over()

    asyncio.run(scenario())


def test_a_boot_that_has_used_half_its_time_is_raised_in_any_case(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot_priority, "LOOK", FAST)
    kernel.demands = {n: Demand(1.0, 0.0) for n in (1, 2)}

    async def scenario() -> None:
        boots = Boots(asyncio.get_running_loop(), can_lower=True)
        begun(boots, 1)
        begun(boots, 2, timeout=FAST)
        await until(lambda: kernel.low == {1})

    asyncio.run(scenario())


def test_nobody_looks_when_nothing_boots(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot_priority, "LOOK", FAST)

    async def scenario() -> None:
        boots = Boots(asyncio.get_running_loop(), can_lower=True)
        for boot in begun(boots, 1, 2):
            boot.over()
        await until(lambda: boots._timer is None)

    asyncio.run(scenario())
    assert kernel.looks == 2


@pytest.mark.parametrize(
    ("spent", "answer"),
    {
        "nobody boots": ([], False),
        "all of a processor each": ([(LOOK, 0.0)] * 2, False),
        "a third of both": ([(LOOK / 6, LOOK)] * 4, False),
        "a tenth of both": ([(LOOK / 20, LOOK)] * 4, True),
        "half of the one that it could use": ([(LOOK / 2, LOOK / 2)], False),
        "it waits for a disk": ([(0.001, 0.001)], False),
    }.values(),
)
def test_boots_starve_when_they_have_too_little_of_what_they_could_use(
    spent: list[tuple[float, float]], answer: bool
) -> None:
    assert starve([Demand(*each) for each in spent], CORES) is answer
