"""What ended workers leave is looked for while it may be there, and no longer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Collection

import pytest

from sockmgr.manager.workers import strays
from sockmgr.manager.workers.strays import Strays


def test_sockets_that_nobody_holds_are_forgotten_however_many_generations_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[Collection[int]] = []

    def nobody(inodes: Collection[int]) -> frozenset[int]:
        looks.append(inodes)
        return frozenset()

    monkeypatch.setattr(strays, "strays", nobody)
    left = Strays(lambda: ())
    for queue in range(100):  # each has a queue of its own, since queues are renewed
        looks.clear()
        left.add(frozenset({queue}), f"web@{queue}.1")
        left.end(frozenset())
    assert looks == [frozenset({98}), frozenset({99})]


def test_who_comes_to_hold_a_socket_after_the_first_look_is_killed_at_the_second() -> None:
    left = Strays(lambda: ())
    with socket.socket() as sock:
        inodes = frozenset({os.fstat(sock.fileno()).st_ino})
        left.add(inodes, "web@1.1")
        left.end(frozenset())
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", "import time; time.sleep(600)"], pass_fds=(sock.fileno(),)
        )
        left.end(frozenset())
    assert child.wait() < 0
