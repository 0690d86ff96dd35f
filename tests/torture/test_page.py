"""The page of a report, in a real browser that reaches no other machine."""

from __future__ import annotations

from pathlib import Path

from sockmgr.torture.judgement import Excuse, judge
from sockmgr.torture.load.result import Outcome, Row
from sockmgr.torture.page import page
from sockmgr.torture.plan import Plan
from sockmgr.torture.run import Run, Trial
from sockmgr.torture.stage import Moment, Sample, Seen
from tests.e2e.browser import Browser

PLAN = Plan(command=("server", "<script>alert(1)</script>"), port=8000)
EXCUSE = Excuse(why="held by the worker that was killed", ports=frozenset({1}))


def rows() -> list[Row]:
    """Four seconds of requests: version 2 comes after two, and some are lost then."""
    found = []
    for number in range(400):
        at = 100 + number / 100
        row = Row(mode="short", scheduled=at, began=at, ended=at + 0.002 * (1 + number % 9),
                  outcome=Outcome.OK, version="2" if number > 200 else "1")  # fmt: skip
        if 200 < number < 208:
            row.outcome, row.version = Outcome.RESET0 if number % 2 else Outcome.REFUSED, ""
            row.port = 1 if number == 201 else 2
        found.append(row)
    return found


def trial(name: str) -> Trial:
    seen = Seen(
        moments=[Moment(at=102, what="reload 2")],
        samples=[Sample(at=100 + n / 4, connections={7: 8, 8: 16 - n}) for n in range(16)],
        excuses=[EXCUSE], notes=["version 2 after 0.1 s"],
    )  # fmt: skip
    judged = judge(rows(), excuses=seen.excuses, verdicts=(), strict=False)
    return Trial(name=name, what="one reload", began_at=100, ended_at=104, rows=rows(), seen=seen,
                 judgement=judged)  # fmt: skip


def test_a_browser_draws_the_whole_page_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    skipped = Trial(name="uploads", what="bodies", skipped="there is no POST /upload")
    run = Run(title="uvicorn <b>", plan=PLAN, trials=[trial("reload"), trial("storm"), skipped])
    file = tmp_path / "report.html"
    file.write_text(page([run, run], above="<p>made by a test</p>"))
    with Browser(tmp_path) as browser:
        for name, width, dark in (("light", 1200, False), ("dark", 1200, True), ("narrow", 390, 0)):
            browser.resize(width, 900, dark=bool(dark))
            browser.open(f"file://{file}")
            browser.wait_text("made by a test")
            assert not browser.evaluate("document.querySelector('details').open")
            browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            browser.screenshot(f"torture-{name}")
            wide = "document.documentElement.scrollWidth - innerWidth"
            assert browser.evaluate(wide) <= 0, name
        text = browser.text
        seen = "[...document.querySelectorAll('svg .%s')].map(e => e.getBBox().height)"
        for style in ("fault", "median", "longest", "f0", "f1", "excused", "s0", "s1"):
            heights = browser.evaluate(seen % style)
            assert len(heights) >= 4, style
            assert all(height > 0 for height in heights), style
        assert browser.evaluate("performance.getEntriesByType('resource').length") == 0
        assert browser.evaluate("document.scripts.length") == 0
    for words in ("uvicorn <b>", "<script>alert(1)</script>", "6 lost: 3 refused, 3 reset before",
                  "excused: 1 held by the worker", "not played: there is no POST"):  # fmt: skip
        assert words in text


def test_one_run_is_open_at_once() -> None:
    text = page([Run(title="one", plan=PLAN, trials=[trial("reload")])])
    assert "<details id=run0 open>" in text
    assert "src=" not in text
    assert "http" not in text
