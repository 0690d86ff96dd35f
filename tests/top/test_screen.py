"""A view as lines: all of it on a wide screen, the essential on a narrow one, never too much."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sockmgr.api.figures import Figures
from sockmgr.api.records import EventKind, recorded
from sockmgr.api.types import CanaryStatus, Status
from sockmgr.fleet.comparison import compare
from sockmgr.log import Occurrence
from sockmgr.metrics.usage import Usage
from sockmgr.top.screen import KEYS, frame
from sockmgr.top.view import Place, View, places
from tests.helpers.fake_manager import a_status

EVENTS = tuple(
    recorded(Occurrence(EventKind.WORKER_ENDED, {"worker": "web@7.1", "how": f"way {number}"}),
             "error", 1.5, number)
    for number in range(1, 50)
)  # fmt: skip
MIB = 2**20
BUSY = Usage(cpu=12.34, rss=48 * MIB, pss=30 * MIB, connections=17)


def view(status: Status | None = None, **changes: object) -> View:
    fields: dict[str, object] = {
        "name": "shop", "status": status or a_status(), "manager": Usage(cpu=0.2, rss=31 * MIB),
        "usage": {"web@8.1": BUSY}, "events": EVENTS, "clock": "15:33:01",
    }  # fmt: skip
    return View(**{**fields, **changes})  # type: ignore[arg-type]


def shown(seen: View, width: int = 80, height: int | None = 24) -> str:
    return "\n".join(line.plain.rstrip() for line in frame(seen, width, height))


@pytest.mark.parametrize("width", [1, 5, 20, 39, 40, 41, 60, 80, 81, 300])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 12, 24, 60])
def test_a_screen_is_as_high_as_the_terminal_and_no_line_is_wider(width: int, height: int) -> None:
    for workers in (0, 4, 50):
        status = a_status(workers)
        chosen = places(status)[-1]
        lines = frame(view(status, chosen=chosen, said="x" * 400), width, height)
        assert len(lines) == height
        assert all(line.cell_len <= width for line in lines)
        assert not any("\n" in line.plain for line in lines)


def test_eighty_columns_have_everything() -> None:
    text = shown(view(), height=30)
    for words in (
        "shop  pid 812  sockmgr 0.1.0  cpu 0.2%  rss 31M",
        "15:33:01",
        "http     tcp://127.0.0.1:8000",
        "2/4096 steered",
        "web  serving  generation 8  4/4 ready",
        "web@7.2",
        "worker ended: way 49",
        KEYS[0],
    ):
        assert words in text
    row = next(line.split() for line in text.splitlines() if "web@8.1" in line)
    assert row == ["web@8.1", "8001", "ready", "4s", "12.3", "48M", "30M", "17"]


def test_forty_columns_have_the_essential() -> None:
    text = shown(view(), width=40, height=24)
    row = next(line.split() for line in text.splitlines() if "web@8.1" in line)
    assert row == ["web@8.1", "ready", "4s", "12.3", "17"]
    assert "tcp://127.0.0.1:8~" in text
    assert "2/4096" in text
    assert "web  serving  generation 8  4/4 ready" in text
    assert KEYS[1] in text


def test_a_rollout_shows_how_far_it_is_and_when_it_is_given_up_or_committed() -> None:
    assert "generation 9 booting [##--------] 1/4 ready, gives up in 20 s" in shown(view())
    assert "  9 booting 1/4, gives up in 20 s" in shown(view(), width=40)
    status = a_status()
    job = status.services["job"]
    assert job.rollout
    proven = replace(job.rollout, phase="probation", ready=4, deadline=3.0)
    status.services["job"] = replace(job, rollout=proven)
    text = shown(view(status))
    assert "generation 9 probation [##########] 4/4 ready, commits in 3 s" in text


def test_a_canary_shows_its_share_and_when_its_step_ends_or_that_it_is_held() -> None:
    status = a_status()
    job = status.services["job"]
    assert job.rollout
    told = CanaryStatus(share=25, step=2, steps=3, since=18.0, left=12.0)
    held = CanaryStatus(share=50, step=1, steps=1, since=3600.0)
    for canary, line in (
        (told, "canary 25 %, step 2 of 3, 12 s left"),
        (held, "canary 50 %, held for 3600 s"),
    ):
        rollout = replace(job.rollout, phase="canary", ready=4, deadline=None, canary=canary)
        status.services["job"] = replace(job, rollout=rollout)
        assert f"  generation 9 {line}, [##########] 4/4 ready" in shown(view(status))
        assert f"  9 {line}"[:40] in shown(view(status), width=40)
    new, old = (Figures(failed=n, times=(m, *Figures().times[1:])) for n, m in ((3, 100), (0, 900)))
    numbers = compare(new, old)
    rollout = replace(rollout, canary=replace(held, compared=numbers))
    status.services["job"] = replace(job, rollout=rollout)
    assert f"ready; {numbers}" in shown(view(status), width=200)
    assert "errors 3.0 % (old 0.0 %)" in str(numbers)


def test_what_could_not_be_read_is_a_dash() -> None:
    text = shown(view(usage={}))
    row = next(line.split() for line in text.splitlines() if "web@8.1" in line)
    assert row == ["web@8.1", "8001", "ready", "4s", "-", "-", "-", "-"]


def test_what_is_chosen_is_always_on_the_screen_and_alone_in_reverse() -> None:
    status = a_status(60)
    for place in places(status):
        lines = frame(view(status, chosen=place), 80, 15)
        chosen = [line for line in lines if any(s.style == "reverse" for s in line.spans)]
        assert [(place.worker or place.service) in line.plain for line in chosen] == [True]


def test_what_is_left_out_is_counted() -> None:
    text = shown(view(a_status(60), chosen=Place(service="web", worker="web@8.30")), height=15)
    found = next(line for line in text.splitlines() if "more above" in line).split()
    rows = text.count("web@8.")
    assert int(found[0]) + rows + int(found[3]) == len(places(a_status(60))) + 1  # and a rollout


def test_what_is_old_is_said_to_be_so_and_dim() -> None:
    lines = frame(view(trouble="no manager answers"), 80, 24)
    assert lines[0].plain == "no manager answers"
    row = next(line for line in lines if "web@8.1" in line.plain)
    assert any(span.style == "dim" for span in row.spans)


def test_a_question_takes_the_place_of_the_keys() -> None:
    text = shown(view(question="reload web? (y/n)", said="before"))
    assert text.endswith("reload web? (y/n)\ny yes  any other key no")
    assert "before" not in text


def test_what_was_said_may_take_three_lines() -> None:
    text = shown(view(said="because " * 50))
    assert [line.count("because") for line in text.splitlines()[-4:]] == [10, 10, 10, 0]


def test_nothing_that_is_told_is_obeyed_by_the_terminal() -> None:
    event = recorded(Occurrence(EventKind.ABORTED, {"reason": "\x1b[2J\x9b1m\n"}), "error", 1.5, 1)
    text = shown(view(events=(event,), said="\x1b]0;title\x07", trouble="\x1b[H"))
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text.replace("\n", ""))


def test_without_a_height_nothing_is_left_out() -> None:
    text = shown(view(a_status(60)), height=None)
    assert all(f"web@8.{slot}" in text for slot in range(60))
    assert text.count("worker ended") == len(EVENTS)
