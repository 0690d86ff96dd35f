"""`sockmgr logs` beside a running manager, as from a second terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import Manager, wait_for

CONFIG = """
name = "shop"
[service.web]
command = ["sh", "-c", "echo hello; exec sleep 1000"]
ready = { exec = ["true"] }
"""


@contextmanager
def follower(manager: Manager, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "sockmgr", "logs", "--control", str(manager.control), "-f"]
    process = subprocess.Popen(
        [*argv, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout
    assert any(words in line for line in process.stdout), f"{words} did not come"


def test_a_second_terminal_reads_what_was_printed_and_follows_to_the_end(tmp_path: Path) -> None:
    with Manager(tmp_path, CONFIG) as manager, follower(manager) as process:
        read_until(process, "web@1.1 | hello")
        manager.reload()
        read_until(process, "web@2.1 | hello")
        manager.stop()
        read_until(process, "stopped service=web")
        assert process.wait(30) == 0
        assert process.stderr
        assert "the manager has ended" in process.stderr.read()


def test_a_follower_that_is_stopped_holds_up_neither_workers_nor_the_manager(
    tmp_path: Path,
) -> None:
    chatty = CONFIG.replace("echo hello;", "seq 50000; echo done;")
    with Manager(tmp_path, chatty) as manager, follower(manager) as process:
        read_until(process, "|")
        process.send_signal(signal.SIGSTOP)
        assert manager.reload().code == 0
        wait_for(lambda: "web@2.1 | done" in manager.log, "the worker to print everything")
        process.send_signal(signal.SIGCONT)
        manager.stop()
        assert process.stdout
        shown = process.stdout.read()
        assert process.wait(30) == 0
        assert process.stderr
        assert "lines missed" in process.stderr.read()
        assert "stopped service=web" in shown
