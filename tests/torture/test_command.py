"""`sockmgr torture` on the command line: what it answers, writes and refuses; it leaves nothing."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import wait_for
from tests.torture.servers import PROGRAM, free_port, left_of, prefork

SOCKMGR = (sys.executable, "-m", "sockmgr", "torture")
SERVER = ("--", sys.executable, PROGRAM, "{port}")


def torture(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SOCKMGR, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_it_answers_with_a_table_and_writes_json_and_a_page(tmp_path: Path) -> None:
    page, figures = tmp_path / "report.html", tmp_path / "report.json"
    done = torture(
        "--app", "--port", str(free_port()), "--reload", "kill -HUP {pid}", "--only", "reload",
        "--seconds", "0.5", "--timeout", "20", "--json", str(figures), "--html", str(page), *SERVER,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 excused; 0 of 1 scenario failed" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "one reload" in done.stderr
    assert json.loads(figures.read_text())["trials"][0]["lost"] == {}
    assert "<svg" in page.read_text()


def test_it_fails_with_1_if_a_server_loses_what_it_need_not_lose() -> None:
    done = torture(
        "--app", "--port", str(free_port()), "--reload", "kill -HUP {pid}", "--only", "reload",
        "--seconds", "0.5", *SERVER, "reset",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "reset before a byte" in done.stdout


SLEEP = ("--", "sleep", "60")
HUP = ("--reload", "kill -HUP {pid}")
FILES = ("--", sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1")
REFUSED = {
    "no command": ([], "give either a config file"),
    "both": (["-c", "sockmgr.toml", *SLEEP], "give either a config file"),
    "no port": ([*SLEEP], "--port says where"),
    "an unknown scenario": (["--port", "1", "--only", "flood", *SLEEP], "there are steady, reload"),
    "an unknown placeholder": (["--port", "1", "--reload", "kill {pdi}", *SLEEP], "write {pid}"),
    "a break that nothing mends": (["--port", "1", "--break", "false", *SLEEP], "add --deploy"),
    "no such program": (["--port", "PORT", "--", "no-such-server"], "cannot start no-such-server"),
    "a server that ends": (["--port", "PORT", "--", "sh", "-c", "echo no database; exit 7"],
                           "ended with 7 before it answered on port PORT\n  no database"),
    "a port that never opens": (["--port", "PORT", "--start-timeout", "0.2", *SLEEP],
                                "nobody answers on port PORT after 0.2 s"),
    "a reload that fails": (["--port", "PORT", "--app", "--reload", "echo no; exit 9", *SERVER],
                            "the reload command ended with 9 when nothing had been changed\n  no"),
    "what it does not answer": (["--port", "PORT", "--expect", "a shop", *FILES],
                                "correct --expect"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_tortured_is_refused_with_2_and_the_reason(case: str) -> None:
    arguments, words = REFUSED[case]
    port = str(free_port())
    done = torture(*(port if word == "PORT" else word for word in arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert words.replace("PORT", port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_somebody_has_is_not_taken_for_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        done = torture("--port", str(sock.getsockname()[1]), *SLEEP)
    assert done.returncode == 2
    assert "somebody listens" in done.stderr


def test_whoever_ends_it_ends_all_that_it_has_started() -> None:
    plan = prefork()
    argv = [*SOCKMGR, "--app", "--port", str(plan.port), "--only", "steady", *SERVER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        wait_for(lambda: len(left_of(plan)) >= 3, "the server and its workers")
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60)
    assert run.returncode == 130
    assert not left_of(plan)
