"""`sockmgr dev` in terminals of all kinds: its keys, and every way to end it."""

from __future__ import annotations

import signal
import socket
import termios
from pathlib import Path

import pytest

from tests.e2e.dev_project import APP, Project
from tests.e2e.harness import wait_for


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_keys_reload_show_the_status_and_quit(project: Project) -> None:
    with project.dev() as dev:
        before = termios.tcgetattr(dev.tty)
        dev.see("web 1 serves")
        dev.see("^keys")
        dev.press("r")
        dev.see(r"^web 1 → 2 in \d\.\d\d s$")
        dev.press("xs")
        dev.see(r"^  web@2\.1  ready, \d+ MB, pid \d+$")
        dev.press("q")
        assert dev.wait() == 0
        assert termios.tcgetattr(dev.tty) == before
        assert dev.text.count("keys:") == 1
        dev.wait_for_nothing_left()


DETACHED = """\
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
"""


def test_ctrl_c_lets_requests_finish_and_twice_ends_at_once(project: Project) -> None:
    main = project.package / "main.py"
    answer = '    await send({"type": "http.response.start"'
    slow = f"    import asyncio; await asyncio.sleep(1)\n{answer}"
    main.write_text(APP.replace(answer, slow))
    with project.dev("--drain-timeout", "10") as dev:
        dev.see("web 1 serves")
        with socket.create_connection(dev.address(), timeout=20) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: not dev.status()["listeners"]["http"]["queue"], "the accept")
            dev.press("\x03")
            assert b"200 OK" in sock.recv(1000)
        assert dev.wait() == 0
    with project.dev("--drain-timeout", "100") as dev:
        dev.see("web 1 serves")
        with socket.create_connection(dev.address(), timeout=20) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            dev.press("\x03")
            dev.see("Shutting down")
            dev.press("\x03")
            assert dev.wait() == 0
        dev.wait_for_nothing_left()


@pytest.mark.parametrize("way", ["kill -9", "hang up", "term"])
def test_no_orphan_is_left_however_it_ends(project: Project, way: str) -> None:
    project.save("1", DETACHED)
    with project.dev() as dev:
        before = termios.tcgetattr(dev.tty)
        dev.see("web 1 serves")
        dev.see("^keys")
        assert len(dev.leftovers()) >= 2
        if way == "kill -9":
            dev.kill9()
            dev.wait_for_nothing_left()
        elif way == "hang up":
            dev.hang_up()
            assert dev.wait() == 0
            dev.wait_for_nothing_left()
        else:
            dev.process.send_signal(signal.SIGTERM)
            assert dev.wait() == 0
            assert termios.tcgetattr(dev.tty) == before
            dev.wait_for_nothing_left()


# --- Terminals of all kinds ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["NO_COLOR", "dumb", "a pipe"])
def test_without_colours_nothing_but_text_is_written(project: Project, how: str) -> None:
    env = {"NO_COLOR": "1"} if how == "NO_COLOR" else {"TERM": "dumb"} if how == "dumb" else {}
    with project.dev(env=env, terminal=how != "a pipe") as dev:
        dev.see("^web 1 serves")
        project.save("2", "1 / 0")
        dev.see(r"^web@2\.1 \| ZeroDivisionError: division by zero$")
        dev.see(r"^web 2 failed: 1 keeps serving")
        project.save("3")
        dev.see("^web 1 → 3 in")
        assert "\x1b" not in dev.raw
        assert "keys:" not in dev.text


def test_forty_columns_are_enough(project: Project) -> None:
    with project.dev(columns=40) as dev:
        dev.see("web 1 serves")
        (project.package / "a_rather_long_name_of_a_file.py").write_text("")
        dev.see(r"^web 1 → 2 in \d\.\d\d s, 1 file$")
        project.save("2", "raise ValueError('x' * 60)")
        dev.see(r"^ValueError: x{60}$")
        dev.see(r"^web 3 failed: 2 keeps serving, 1 file$")


def test_output_to_a_closed_pipe_is_no_trouble(project: Project) -> None:
    with project.dev(terminal=False) as dev:
        dev.see("^web 1 serves")
        dev.close_pipe()
        project.save("2")
        dev.wait_answer("version 2")
        dev.process.send_signal(signal.SIGTERM)
        assert dev.wait() == 0
        dev.wait_for_nothing_left()
