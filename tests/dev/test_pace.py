"""When dev looks and reloads: on a clock that the tests move by hand."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockmgr.dev import pace as module
from sockmgr.dev.pace import GiveUp, Look, Pace, Reload, Step


class Disk:
    """A pace, the files it is told of, and what the generations read. Time passes in `until`."""

    def __init__(self, start: float = 0.1) -> None:
        self.now = 0.0
        self.pace = Pace(0.0)
        self.start = start  # how long one takes; the code is read half-way
        self.files: dict[str, str] = {}
        self.seen: dict[str, str] = {}
        self.read: dict[str, str] = {}
        self.served: dict[str, str] = {}
        self.steps: list[Step] = []
        self.touched: set[str] = set()
        self.reads_at, self.ends_at = start / 2, start

    def save(self, path: str, content: str) -> None:
        self.files[path] = content
        self.touched.add(path)
        self.pace.noticed(self.now)
        self.run()

    def run(self) -> None:
        """Take every step that is due now."""
        while step := self.pace.next(self.now):
            self.steps.append(step)
            match step:
                case Look():
                    touched, self.touched = self.touched, set()
                    changed = {p for p in touched if self.files.get(p) != self.seen.get(p)}
                    self.seen = dict(self.files)
                    self.pace.looked(sorted(changed), sorted(touched - changed), self.now)
                case Reload():
                    self.reads_at, self.ends_at = self.now + self.start / 2, self.now + self.start
                case GiveUp():
                    self.reads_at, self.ends_at = math.inf, self.now

    def until(self, end: float) -> None:
        while (instant := min(self.pace.deadline, self.reads_at, self.ends_at)) <= end:
            self.now = max(self.now, instant)
            if self.now >= self.reads_at:
                self.read, self.reads_at = dict(self.files), math.inf
            if self.now >= self.ends_at:
                self.served, self.ends_at = self.read, math.inf
                self.pace.ended(self.now)
            self.run()
        self.now = end

    def wait(self, seconds: float) -> None:
        self.until(self.now + seconds)

    @property
    def reloads(self) -> list[tuple[str, ...]]:
        return [step.paths for step in self.steps if isinstance(step, Reload)]


@pytest.fixture
def disk() -> Disk:
    disk = Disk()
    disk.wait(1)
    return disk


def test_a_save_is_reloaded_after_some_milliseconds(disk: Disk) -> None:
    disk.save("a", "1")
    disk.wait(0.004)
    assert disk.steps == []
    disk.wait(0.002)
    assert disk.steps == [Look(), Reload(("a",))]


def test_events_that_do_not_end_are_looked_at_all_the_same(disk: Disk) -> None:
    for _ in range(100):
        disk.pace.noticed(disk.now)
        disk.wait(0.003)
    assert disk.steps == [Look()]


def test_saves_that_go_on_are_few_reloads(disk: Disk) -> None:
    for number in range(200):  # as watchfiles tells of them
        disk.save("a", str(number))
        disk.wait(0.03)
    disk.wait(5)
    assert len(disk.reloads) <= 5


def test_a_save_that_leaves_the_content_reloads_nothing(disk: Disk) -> None:
    disk.save("a", "1")
    disk.wait(1)
    disk.save("a", "1")
    disk.wait(5)
    assert disk.reloads == [("a",)]


def test_many_files_are_one_reload_even_with_pauses_between_them(disk: Disk) -> None:
    for number in range(50):
        disk.save(f"{number}", "new")
        disk.wait(0.001)
    disk.wait(0.1)
    for number in range(50, 100):
        disk.save(f"{number}", "new")
        disk.wait(0.001)
    disk.wait(1)
    assert len(disk.reloads) == 1
    assert len(disk.reloads[0]) == 100


def test_a_save_during_a_start_is_reloaded_when_that_has_ended() -> None:
    disk = Disk(start=0.5)
    disk.wait(1)
    disk.save("a", "1")
    disk.wait(0.3)
    disk.save("a", "2")
    disk.wait(1)
    assert disk.reloads == [("a",), ("a",)]
    assert disk.served == {"a": "2"}


def test_what_is_saved_while_another_save_waits_is_reloaded_with_it() -> None:
    disk = Disk(start=0.5)
    disk.wait(0.3)
    disk.save("a", "1")
    disk.wait(0.195)
    disk.save("b", "1")
    disk.wait(1)
    assert disk.reloads == [("a", "b")]


def test_a_file_that_was_another_for_a_moment_of_a_start_is_reloaded() -> None:
    disk = Disk(start=1.0)
    disk.save("a", "1")
    disk.wait(5)
    disk.save("b", "1")
    disk.wait(0.4)  # the generation reads at 0.5
    disk.save("a", "2")
    disk.wait(0.2)
    disk.save("a", "1")
    disk.wait(5)
    assert disk.served == {"a": "1", "b": "1"}


def test_an_application_that_rewrites_a_file_at_every_start_is_not_reloaded_for_ever(
    disk: Disk,
) -> None:
    disk.save("generated", "same")
    disk.wait(1)
    disk.save("a", "1")
    for _ in range(100):
        if disk.ends_at < math.inf:
            disk.save("generated", "same")
        disk.wait(0.05)
    before = len(disk.reloads)
    assert before <= 2 + module.HABIT
    assert disk.pace.habits == {"generated"}
    disk.save("a", "2")
    disk.wait(0.05)
    disk.save("generated", "same")
    disk.wait(5)
    assert len(disk.reloads) == before + 1


def test_a_file_with_a_habit_still_counts_when_its_content_changes(disk: Disk) -> None:
    test_an_application_that_rewrites_a_file_at_every_start_is_not_reloaded_for_ever(disk)
    disk.save("generated", "another")
    disk.wait(1)
    assert disk.served["generated"] == "another"


def test_an_application_that_changes_a_file_at_every_start_is_slowed_down(disk: Disk) -> None:
    disk.save("a", "1")
    count = 0
    while disk.now < 61:
        if disk.ends_at < math.inf:
            disk.save("version", str(count := count + 1))
        disk.wait(0.05)
    assert disk.pace.chasing
    assert len(disk.reloads) < 40


def test_who_edits_what_has_just_begun_to_serve_does_not_wait(disk: Disk) -> None:
    for number in range(20):
        disk.save("a", str(number))
        disk.wait(0.1)
        disk.pace.served(disk.now)  # the verdict comes in 0.01 s
        disk.wait(0.005)
    disk.wait(0.1)
    assert not disk.pace.chasing
    assert disk.served == {"a": "19"}


def test_a_start_that_takes_long_is_given_up_when_newer_code_waits() -> None:
    disk = Disk(start=60.0)
    disk.until(61)
    disk.save("a", "hangs")
    disk.wait(5)
    disk.start = 0.1
    disk.save("a", "fixed")
    disk.wait(0.02)
    assert isinstance(disk.steps[-2], GiveUp)
    disk.wait(1)
    assert disk.served == {"a": "fixed"}


def test_two_starts_in_a_row_are_not_given_up_soon() -> None:
    disk = Disk(start=4.0)
    disk.until(5)
    for number in range(30):
        disk.save("a", str(number))
        disk.wait(0.9)
    assert disk.served
    disk.wait(20)
    assert disk.served == {"a": "29"}


def test_asking_reloads_at_once_and_without_a_change(disk: Disk) -> None:
    disk.pace.ask()
    disk.run()
    assert disk.reloads == [()]


def test_nothing_is_due_when_nothing_happens(disk: Disk) -> None:
    assert disk.pace.deadline == math.inf
    disk.save("a", "1")
    disk.wait(10)
    assert disk.pace.deadline == math.inf


def test_ten_seconds_of_a_thousand_saves_a_second_are_few_looks_and_reloads(disk: Disk) -> None:
    for number in range(10_000):
        disk.save(f"{number % 7}", str(number))
        disk.wait(0.001)
    assert len(disk.steps) < 100
    assert 2 <= len(disk.reloads) <= 10
    disk.wait(3)
    assert disk.served == disk.files


EDITS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from("012"),
        st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.3, 1.0, 3.0]),
    ),
    max_size=12,
)


@given(edits=EDITS, start=st.sampled_from([0.05, 0.4, 2.0, 12.0]), seed=st.integers(0, 99))
def test_what_was_saved_last_serves_in_the_end_whenever_it_was_saved(
    edits: list[tuple[str, str, float]], start: float, seed: int
) -> None:
    disk, pauses = Disk(start), random.Random(seed)
    disk.files = {"a": "0", "b": "0"}
    disk.seen = dict(disk.files)
    for path, content, pause in edits:
        disk.save(path, content)
        disk.wait(pause * pauses.random())
    disk.wait(120)
    # A toggle that is finer than a start, three times in a row, looks like a habit.
    stale = {path for path in disk.files if disk.served.get(path) != disk.files[path]}
    assert stale <= disk.pace.habits
    assert disk.pace.deadline == math.inf
