"""`sockmgr health`: who is asked, what is said, and how little is loaded for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sockmgr.client import health

CALL = {"method": "io.sockmgr.Manager.Health", "parameters": {}}


@contextmanager
def a_manager(path: Path, reply: bytes | None) -> Iterator[list[dict[str, object]]]:
    """Answer one call at `path` by these bytes (None: hang up); yield what was asked."""
    asked: list[dict[str, object]] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                if call := client.recv(65536):  # none: a look whether anybody listens
                    asked.append(json.loads(call[:-1]))
                    client.sendall(reply or b"")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def said(healthy: bool, line: str) -> bytes:
    return json.dumps({"parameters": {"healthy": healthy, "line": line}}).encode() + b"\0"


def test_the_line_and_the_exit_code_are_the_managers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with a_manager(tmp_path / "s", said(True, "up: web 1/2")) as asked:
        assert health.quick(["--control", str(tmp_path / "s")]) == 0
        assert health.quick(["web", f"--control={tmp_path / 's'}", "--ready"]) == 0
    assert asked == [CALL, CALL | {"parameters": {"service": "web", "ready": True}}]
    with a_manager(tmp_path / "t", said(False, "not ready (stopping): web 1/2")):
        assert health.quick(["--ready", "--control", str(tmp_path / "t")]) == 1
    lines = ["up: web 1/2", "up: web 1/2", "not ready (stopping): web 1/2"]
    assert capfd.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (None, "it hung up"),
        (b"nonsense\0", "no answer"),
        (b"[]\0", "cannot be understood"),
        (b'{"parameters": 7}\0', "cannot be understood"),
        (b'{"error": "x.Refused", "parameters": {"what": "there is no service y"}}\0', "service y"),
        (b'{"error": "x.MethodNotFound"}\0', "MethodNotFound"),
    ],
)
def test_whatever_else_a_manager_says_is_unhealthy(
    tmp_path: Path, reply: bytes | None, line: str
) -> None:
    with a_manager(tmp_path / "s", reply):
        healthy, found = health.ask(str(tmp_path / "s"), None, ready=False)
    assert not healthy
    assert line in found


def test_no_manager_and_one_that_hangs_are_unhealthy(tmp_path: Path) -> None:
    assert health.ask(str(tmp_path / "s"), None, ready=False)[0] is False
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(str(tmp_path / "h"))
        hangs.listen()
        healthy, line = health.ask(str(tmp_path / "h"), None, ready=False, timeout=0.1)
    assert not healthy
    assert line == f"no answer from the manager at {tmp_path / 'h'} within 0.1 s"


def test_the_manager_is_found_by_the_name_in_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("SOCKMGR_CONTROL", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sockmgr.toml").write_text('name = "of-a-test"\nthis = "is not known"\n')
    assert health.quick([]) is None  # the usual way says where it was looked for
    with (
        a_manager(tmp_path / "of-a-test.sock", said(True, "x")) as asked,
        a_manager(tmp_path / "other.sock", said(False, "y")) as others,
    ):
        assert health.quick([]) == health.quick(["-c", "sockmgr.toml"]) == 0
    assert (len(asked), others) == (2, [])


@pytest.mark.parametrize(
    "words", [["--help"], ["--json"], ["--timeout", "1"], ["a", "b"], ["-c"], ["--"], [""]]
)
def test_unusual_words_are_for_the_usual_way(words: list[str]) -> None:
    assert health.quick(words) is None


def test_a_probe_loads_next_to_nothing(tmp_path: Path) -> None:
    with a_manager(tmp_path / "s", said(True, "up: web 1/1")):
        command = [sys.executable, "-X", "importtime", "-m", "sockmgr", "health"]
        environment = {**os.environ, "SOCKMGR_CONTROL": str(tmp_path / "s")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "up: web 1/1\n"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    ours = {name for name in imported if name.startswith("sockmgr")}
    assert ours == {"sockmgr", "sockmgr.client", "sockmgr.client.health", "sockmgr.client.places"}
    assert not imported & {"click", "msgspec", "tomli", "asyncio", "typing"}
