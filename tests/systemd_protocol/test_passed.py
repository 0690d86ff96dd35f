"""What a manager is handed by systemd: descriptors of every kind, told apart by name only."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sockmgr.systemd.passed import passed_to_another
from tests.helpers.children import python

pytestmark = pytest.mark.usefixtures("speaker")

TELL = """
import json, os, stat
from sockmgr.systemd.passed import passed_descriptors
found = passed_descriptors()
inheritable = [fd for fds in found.values() for fd in fds if os.get_inheritable(fd)]
inodes = {name: [os.fstat(fd).st_ino for fd in fds] for name, fds in found.items()}
print(json.dumps([inodes, inheritable]))
"""


def told(names: Sequence[str], fds: Sequence[int], **env: str) -> Any:
    """Return the inodes by name that a process with these descriptors finds, and what leaks."""
    listen = {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(names)}
    with python(
        TELL, fds=fds, env=dict(os.environ) | listen | env, set_listen_pid=not env
    ) as child:
        return json.loads(child.rest())


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def test_descriptors_of_every_kind_are_found_by_name_in_order_and_are_not_inherited() -> None:
    state = os.memfd_create("state")
    pidfd = os.pidfd_open(os.getpid())
    output, writer = os.pipe()
    with socket.socket() as first, socket.socket() as second:
        fds = [first.fileno(), second.fileno(), output, state, pidfd]
        found, leaks = told(["http", "http", "web@7.2", "@state", "web@7.2"], fds)
        expected = {
            "http": [inode(first.fileno()), inode(second.fileno())],
            "web@7.2": [inode(output), inode(pidfd)],
            "@state": [inode(state)],
        }
    for fd in (state, pidfd, output, writer):
        os.close(fd)
    assert found == expected
    assert leaks == []


def test_what_was_meant_for_another_process_is_left_alone() -> None:
    with socket.socket() as sock:
        assert told(["http"], [sock.fileno()], LISTEN_PID="1") == [{}, []]


def behind_a_wrapper(control: Path, port: int) -> subprocess.Popen[str]:
    """Start a manager as the child of a shell to which systemd has passed a socket."""
    script = 'export LISTEN_PID=$$; "$@"; exit $?'
    manager = [
        sys.executable, "-m", "sockmgr", "run", f"--control={control}", "--name=shop",
        f"--listen=http=tcp://127.0.0.1:{port}", "--", "sleep", "inf",
    ]  # fmt: skip
    env = os.environ | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
    return subprocess.Popen(
        ["sh", "-c", script, "sh", *manager], env=env, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_manager_whose_sockets_went_to_a_wrapper_says_so_and_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        wrapper = behind_a_wrapper(tmp_path / "shop.sock", sock.getsockname()[1])
        _, told = wrapper.communicate(timeout=60)
    assert wrapper.returncode == 1
    passed = f"systemd passed 1 socket (http) to process {wrapper.pid} (sh), and the manager is"
    assert told.count(passed) == 2  # in the log, and in the error
    assert "address already in use" in told
    assert "have ExecStart= run sockmgr itself" in told


@pytest.mark.parametrize("environ", [
    {}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "0", "LISTEN_PID": "1"},
    {"LISTEN_FDS": "x", "LISTEN_PID": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "7"},
])  # fmt: skip
def test_what_is_not_passed_to_another_is_no_news(environ: dict[str, str]) -> None:
    assert passed_to_another(environ, 7) == ""


def test_sockets_for_a_process_that_has_ended_are_told_too() -> None:
    environ = {"LISTEN_FDS": "2", "LISTEN_PID": "9" * 5000}
    assert "2 sockets to process 999" in passed_to_another(environ)
