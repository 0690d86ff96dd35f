"""`sockmgr top` where it cannot be live, and on a terminal beside a manager that only answers."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

import pytest

from sockmgr.errors import ControlError
from tests.e2e.top import Top
from tests.helpers.command_line import manager, path, sockmgr
from tests.helpers.fake_manager import FakeManager, progress, serving

__all__ = ["manager", "path"]  # fixtures


# --- Without a terminal --------------------------------------------------------------------------


@pytest.mark.usefixtures("manager")
def test_without_a_terminal_it_says_so_and_what_to_do_instead() -> None:
    result = sockmgr("top")
    assert result.exit_code == 2
    assert "top needs a terminal to draw on; --once" in result.stderr


@pytest.mark.usefixtures("manager")
def test_once_is_plain_text_for_a_pipe() -> None:
    result = sockmgr("top", "--once")
    assert result.exit_code == 0
    assert "web  serving  generation 8  4/4 ready" in result.stdout
    assert "web@8.1" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.usefixtures("manager")
def test_json_is_refused_and_the_verbs_that_have_it_are_named() -> None:
    result = sockmgr("top", "--once", "--json")
    assert result.exit_code == 2
    assert "status and events have --json" in result.stderr


def test_without_a_manager_the_exit_code_is_3(path: Path) -> None:
    del path
    assert sockmgr("top", "--once").exit_code == 3


# --- On a terminal -------------------------------------------------------------------------------


def test_without_a_manager_the_terminal_is_not_touched(path: Path) -> None:
    with Top(path) as top:
        assert top.wait() == 3
        assert "no manager answers" in top.text
        assert b"\x1b[?1049h" not in top.raw


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 12)])
def test_it_fits_the_terminal_and_has_what_matters(
    manager: FakeManager, path: Path, columns: int, lines: int
) -> None:
    manager.happen("one")
    with Top(path, columns=columns, lines=lines) as top:
        top.see("ended: one" if columns == 80 else "worker ended")
        top.see("q quit$")  # the last line
        assert top.rows[0].startswith("shop-of-a-test  pid 812")
        assert "2/4096" in top.text
        assert "web  serving  generation 8  4/4 ready" in top.text
        assert "web@8.0" in top.text


def test_it_follows_the_size_of_the_terminal(manager: FakeManager, path: Path) -> None:
    del manager
    with Top(path) as top:
        top.see("restart worker")
        top.resize(40, 10)
        top.see(r"\+ - scale  w worker  q quit$")
        top.resize(100, 40)
        top.see("restart worker")
        top.see("PSS")


def test_new_events_appear_with_the_next_look(manager: FakeManager, path: Path) -> None:
    with Top(path) as top:
        top.see("web@8.0")
        manager.happen("just now")
        top.see("web@8.1 worker ended: just now")


def test_nothing_is_done_before_the_question_is_answered_with_yes(
    manager: FakeManager, path: Path
) -> None:
    with Top(path) as top:
        top.see("web@8.0")
        for keys, question in (
            ("r", "reload web?"), ("+", "scale web from 4 to 5?"), ("-", "scale web from 4 to 3?"),
            ("\x1b[B\x1b[Bw", "restart web@8.0?"),
        ):  # fmt: skip
            top.press(keys)
            top.see(re.escape(f"{question} (y/n)"))
            top.press("n")
            top.see("nothing was done")
        assert (manager.reloads, manager.scaled, manager.restarted) == ([], [], [])


def test_keys_do_what_they_say_to_what_is_chosen_and_tell_how_it_went(
    manager: FakeManager, path: Path
) -> None:
    with Top(path) as top:
        top.see("web@8.0")
        top.press("ry")
        top.see("web: generation 8 serves after 2.1 s")
        top.press("+y")
        top.see("web: 5 workers are ready")
        top.press("w")
        top.see("choose a worker first")
        top.press("jj")
        top.press("wy")
        top.see("web@8.0 is replaced by web@8.9")
        assert top.reversed_row().startswith("  web@8.0")
    assert manager.reloads == [("web",)]
    assert manager.scaled == [("web", 5, False)]
    assert manager.restarted == ["web@8.0"]


def test_while_the_manager_is_at_it_the_screen_goes_on_and_tells_how_far_it_is(
    manager: FakeManager, path: Path
) -> None:
    manager.gate.clear()
    manager.news = [progress(1)]
    with Top(path) as top:
        top.see("web@8.0")
        top.press("ry")
        top.see("web: generation 8 booting, 1/4 ready, 0.5 s")
        manager.happen("meanwhile")
        top.see("worker ended: meanwhile")
        top.press("q")
        assert top.wait() == 0


def test_what_the_manager_refuses_is_shown(manager: FakeManager, path: Path) -> None:
    with Top(path) as top:
        top.see("web@8.0")
        manager.error = ControlError("there is no room", means="nothing was changed")
        top.press("ry")
        top.see("there is no room; nothing was changed")


def test_a_manager_that_goes_away_is_shown_and_so_is_the_one_that_comes_back(path: Path) -> None:
    with contextlib.ExitStack() as running:
        running.enter_context(serving(path))
        with Top(path) as top:
            top.see("web@8.0")
            running.close()
            top.see("^no manager answers; waiting for the next one$")
            assert "web@8.0" in top.text
            running.enter_context(serving(path, workers=2)).happen("it is back")
            top.see("it is back")
            top.see_no("no manager answers")
            assert "2/2 ready" in top.text


def test_no_color_means_no_colour(manager: FakeManager, path: Path) -> None:
    manager.happen("one")
    with Top(path) as top:
        top.see("worker ended")
        assert "green" in top.colours()
    with Top(path, env={"NO_COLOR": "1"}) as top:
        top.see("worker ended")
        assert top.colours() == {"default"}


# --- Ways out ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "code"),
    [("q", 0), ("\x03", 0), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)],
    ids=["q", "Ctrl-C", "TERM", "HUP"],
)
def test_whichever_way_it_ends_the_terminal_is_as_it_was(
    manager: FakeManager, path: Path, way: str | signal.Signals, code: int
) -> None:
    del manager
    with Top(path) as top:
        top.see("web@8.0")
        assert top.takes_keys()
        top.press("r")
        top.see("reload web")
        if isinstance(way, str):
            top.press(way if code or way != "q" else "nq")
        else:
            top.process.send_signal(way)
        assert top.wait() == code
        assert top.is_given_back()


def test_while_it_is_suspended_the_shell_has_the_terminal(manager: FakeManager, path: Path) -> None:
    with Top(path, shell=True) as top:
        top.see("web@8.0")
        top.press("\x1a")
        top.see_the_shell()
        top.see("Stopped")
        manager.happen("meanwhile")
        top.press("fg\n")
        top.see("worker ended: meanwhile")
        assert not top.has_left_the_screen()
        top.press("q")
        top.see_the_shell()
        top.press("echo ended with $?\n")
        top.see("ended with 0")


def test_it_ends_when_the_terminal_is_closed(manager: FakeManager, path: Path) -> None:
    del manager
    with Top(path) as top:
        top.see("web@8.0")
        top.hang_up()
        assert top.process.wait(30) != 0
