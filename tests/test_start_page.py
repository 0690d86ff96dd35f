"""docs/start.md does what it says; and what runs it finds when it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.pages import ROOT
from tests.start_page import PAGE, UNDER_SYSTEMD, blocks, missing, play

BIN = Path(sys.executable).parent
FOUND = list(blocks(PAGE.read_text()))


def test_commands_are_read_with_their_heading_and_what_they_show() -> None:
    page = "## A\n```sh\n1\n```\n```sh\n2\n```\nb\n```text\n3\n```\n## B\n```\n4\n```\n"
    assert list(blocks(page)) == [("A", "1\n", []), ("A", "2\n", ["3"])]


def test_what_is_shown_has_to_be_printed_in_this_order_but_for_figures_and_columns() -> None:
    printed = "pid 7  ready\nand 1.5 s\n"
    assert not missing(["pid 123 ready", "1.25 s"], printed)
    assert missing(["1.25 s", "pid 123 ready"], printed) == "pid 123 ready"
    assert missing(["pid seven"], printed) == "pid seven"


@pytest.mark.parametrize(
    ("commands", "shown", "wrong"),
    [
        ("echo 1 2", "one", "There: not printed, or not in this order: one"),
        ("false; echo 1", "", "the commands ended with exit code 1"),
        ("exit 3", "", "the commands ended with exit code 3"),
        ("echo 1", "2", ""),
    ],
)
def test_a_page_that_is_not_true_is_found(
    tmp_path: Path, commands: str, shown: str, wrong: str
) -> None:
    page = f"## There\n```sh\n{commands}\n```\n```text\n{shown}\n```\n"
    assert play(list(blocks(page)), tmp_path, dict(os.environ)) == wrong


def test_commands_that_do_not_end_are_given_up(tmp_path: Path) -> None:
    (block,) = blocks("## There\n```sh\necho begun; sleep 600\n```\n")
    wrong = play([block], tmp_path, dict(os.environ), timeout=0.2)
    assert wrong == "the commands did not end within 0.2 s"


def test_the_page_has_commands_for_all_that_it_is_about() -> None:
    commands = "".join(block.commands for block in FOUND)
    for verb in ("init", "check", "run", "reload", "status", "history", "stop", "units"):
        assert f"sockmgr {verb}" in commands
    assert FOUND[-1].heading == UNDER_SYSTEMD


@pytest.mark.timeout(300)
def test_each_command_of_the_page_does_what_the_page_says() -> None:
    """In a network of its own, where port 8000 is free."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    up = 'ip link set lo up && exec "$0" -m tests.start_page --sockmgr "$1"'
    done = subprocess.run(
        [*alone, "sh", "-c", up, sys.executable, BIN / "sockmgr"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare failed" in done.stderr and not os.environ.get("CI"):
        pytest.skip(f"no namespace for a network: {done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr
