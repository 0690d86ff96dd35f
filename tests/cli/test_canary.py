"""What a person says about a canary, and is told."""

from __future__ import annotations

import pytest

from sockmgr.api.types import CanaryStatus
from tests.helpers.command_line import manager, path, sockmgr
from tests.helpers.fake_manager import ABORTED, FakeManager, a_verdict, progress

__all__ = ["manager", "path"]  # fixtures


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ((), (None, None, None)),
        (("--canary", "10%"), ((10,), None, None)),
        (("--canary", "5%, 25%", "--for", "1m30s"), ((5, 25), 90.0, None)),
        (("--canary", "10%", "--hold"), ((10,), None, True)),
        (("--for", "30"), (None, 30.0, None)),
    ],
)
def test_reload_asks_for_a_canary_as_it_is_told(
    manager: FakeManager, options: tuple[str, ...], asked: tuple[object, ...]
) -> None:
    assert sockmgr("reload", *options).exit_code == 0
    assert manager.canary == asked


@pytest.mark.parametrize("shares", ["", "0%", "100%", "10", "50%,25%", "5%,5%", "5%,", "ten"])
def test_reload_refuses_a_share_that_is_none_and_says_what_is_allowed(
    manager: FakeManager, shares: str
) -> None:
    result = sockmgr("reload", "--canary", shares)
    assert result.exit_code == 2
    assert '"1%" to "99%"' in result.stderr
    assert not manager.reloads


def test_reload_tells_each_step_of_a_canary_once(manager: FakeManager) -> None:
    told = [progress(4, "canary", f"canary {n} %", step=step) for n, step in ((5, 1), (50, 2))]
    manager.news = [told[0], told[0], told[1], told[1]]
    assert [line.rpartition(": ")[2] for line in sockmgr("reload").stderr.splitlines()] == [
        "canary 5 %", "canary 50 %",
    ]  # fmt: skip


def test_promote_succeeds_if_the_canary_is_committed_and_fails_if_it_is_not(
    manager: FakeManager,
) -> None:
    result = sockmgr("promote", "web")
    assert result.exit_code == 0
    assert result.stdout.startswith("generation 8 is serving after 2.1 s")
    manager.verdicts = [ABORTED]
    assert sockmgr("promote").exit_code == 1
    assert manager.decided == [("promote", "web", ""), ("promote", "", "")]


def test_abort_succeeds_if_the_rollout_is_taken_back_and_fails_if_it_is_not(
    manager: FakeManager,
) -> None:
    manager.verdicts = [ABORTED]
    result = sockmgr("abort", "--reason", "the graphs")
    assert result.exit_code == 0
    assert "generation 7 keeps serving" in result.stdout
    manager.verdicts = [a_verdict()]
    assert sockmgr("abort", "web").exit_code == 1
    assert manager.decided == [("abort", "", "the graphs"), ("abort", "web", "")]


def test_a_canary_is_written_with_its_share_its_step_and_what_is_left() -> None:
    told = CanaryStatus(share=25, step=2, steps=3, since=18.4, left=11.6)
    assert str(told) == "canary 25 %, step 2 of 3, 12 s left"
    assert str(CanaryStatus(share=5, step=1, steps=1, since=61)) == "canary 5 %, held for 61 s"
    passed = CanaryStatus(share=50, step=3, steps=3, since=1.0, left=60.0, passed=True)
    assert str(passed) == "canary 50 %, step 3 of 3, passed"
