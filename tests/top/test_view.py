"""What can be chosen, and what stays chosen when workers come and go."""

from __future__ import annotations

from sockmgr.api.types import Status
from sockmgr.terminal.keys import strokes
from sockmgr.top.view import Place, moved, places, still_chosen
from tests.helpers.fake_manager import a_status

WEB = Place(service="web")


def worker(name: str) -> Place:
    return Place(service=name.partition("@")[0], worker=name)


def nothing() -> Status:
    status = a_status()
    status.services.clear()
    return status


def test_a_service_comes_before_its_workers_and_the_newest_generation_first() -> None:
    assert places(a_status(2)) == [
        WEB, worker("web@8.0"), worker("web@8.1"), worker("web@7.0"), worker("web@7.1"),
        worker("web@7.2"), Place(service="job"),
    ]  # fmt: skip


def test_the_choice_moves_row_by_row_and_stops_at_both_ends() -> None:
    status = a_status(2)
    assert moved(status, None, 1) == WEB
    assert moved(status, WEB, 1) == worker("web@8.0")
    assert moved(status, WEB, -1) == WEB
    assert moved(status, Place(service="job"), 1) == Place(service="job")
    assert moved(nothing(), None, 1) is None


def test_what_is_chosen_stays_chosen_wherever_it_moves() -> None:
    assert still_chosen(a_status(2), a_status(4), worker("web@7.1")) == worker("web@7.1")
    assert still_chosen(a_status(2), a_status(2), None) is None


def test_when_what_was_chosen_is_gone_its_place_is_chosen() -> None:
    assert still_chosen(a_status(3), a_status(2), worker("web@8.2")) == worker("web@7.0")
    assert still_chosen(a_status(3), nothing(), worker("web@8.2")) is None


def test_arrow_keys_are_one_stroke_in_both_of_their_forms() -> None:
    assert list(strokes("\x1b[A\x1bOBr\x1b")) == ["up", "down", "r", "\x1b"]


def test_other_sequences_are_no_letters() -> None:
    assert list(strokes("\x1b[1;5C\x1b[15~\x1b[200~y")) == ["y"]
