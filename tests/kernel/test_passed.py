"""What a manager is handed by systemd: descriptors of every kind, told apart by name only."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from tests.kernel.children import python

pytest.importorskip("systemd", reason="python-systemd is not installed")

TELL = """
import json, os, stat
from sockmgr.systemd import passed_descriptors
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
