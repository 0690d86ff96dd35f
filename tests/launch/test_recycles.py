"""What a command with limits loses is said in words, and nothing is said of others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sockmgr.config.config import parse
from sockmgr.launch.resolve import prepare

UVICORN = Path(sys.executable).with_name("uvicorn")


def warnings(directory: Path, command: str, more: str, address: str = "tcp://h:1") -> list[str]:
    """Return the warnings, without their key, for a service that runs a server of this name."""
    text = f"""
    [listen]
    http = "{address}"
    [service.web]
    command = {command.split()}
    cwd = "{directory}"
    {more}
    """
    config = parse(text.encode(), file="sockmgr.toml")
    found = prepare(config.services[0], config.listens(), os.environ).warnings()
    return [one.removeprefix("service.web.command: ") for one in found]


@pytest.mark.parametrize("limit", ['max_rss = "1G"', 'max_age = "1d"', 'max_cpu_time = "1h"'])
def test_on_a_shared_queue_a_command_may_lose_who_it_has_just_accepted(
    limit: str, tmp_path: Path
) -> None:
    (told,) = warnings(tmp_path, "hypercorn app:app", limit)
    assert told.startswith(f"{limit.split(maxsplit=1)[0]} on a shared queue: ")
    assert told.endswith('; set accept = "per-worker"')


def test_on_a_unix_socket_it_takes_another_server(tmp_path: Path) -> None:
    (told,) = warnings(tmp_path, "./server", 'max_rss = "1G"', f"unix://{tmp_path}/a")
    assert told.endswith("; use an app, or a server that does")


@pytest.mark.parametrize(
    ("command", "more", "address"),
    [
        ("uvicorn app:app", "", "tcp://h:1"),
        ("uvicorn --limit-max-requests 9 app:app", "", "tcp://h:1"),
        ("uvicorn app:app", 'max_rss = "1G"\naccept = "per-worker"', "tcp://h:1"),
        ("gunicorn app:app", 'max_rss = "1G"', "tcp://h:1"),
        (f"{UVICORN} app:app", 'max_rss = "1G"', "tcp://h:1"),
        (f"{UVICORN} app:app", 'max_rss = "1G"', "unix:///run/a"),
        ("./server", 'max_rss = "1G"', "udp://h:1"),
    ],
)
def test_who_loses_nothing_is_not_warned(
    command: str, more: str, address: str, tmp_path: Path
) -> None:
    assert warnings(tmp_path, command, more, address) == []


def test_a_server_that_ends_by_itself_as_well_is_told_so(tmp_path: Path) -> None:
    more = 'max_rss = "1G"\nmax_age = "1d"'
    (told,) = warnings(tmp_path, "gunicorn --max-requests=1000 app:app", more)
    assert told == (
        "gunicorn --max-requests: it ends by itself, before its successor is there; remove it, "
        "max_age does without"
    )
