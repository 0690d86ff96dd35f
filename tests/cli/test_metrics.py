"""`sockmgr metrics` beside a manager that only answers, or beside none."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.exporter import Exporter, samples
from tests.helpers.command_line import manager, path, sockmgr
from tests.helpers.fake_manager import serving

__all__ = ["manager", "path"]  # fixtures

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
ANYWHERE = ("--listen", "127.0.0.1:0")


# --- Once ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("manager")
def test_once_is_a_scrape_on_standard_output() -> None:
    result = sockmgr("metrics")
    assert (result.exit_code, result.stderr) == (0, "")
    found = samples(result.stdout)
    assert found["sockmgr_up"] == 1
    assert found['sockmgr_info{version="0.1.0"}'] == 1
    assert found["sockmgr_reloads_refused_total"] == 2
    assert found['sockmgr_listener_queue_length{listener="http"}'] == 2
    assert found['sockmgr_service_workers{service="web",state="ready"}'] == 4
    assert found['sockmgr_service_workers{service="web",state="draining"}'] == 3
    assert found['sockmgr_service_workers{service="web",state="killed"}'] == 0
    assert found['sockmgr_service_state{service="web",state="serving"}'] == 1
    assert found['sockmgr_service_rollout_in_progress{service="web"}'] == 0
    assert found['sockmgr_service_rollout_deadline_seconds{service="job"}'] == 20
    assert found['sockmgr_service_rollouts_total{outcome="committed",service="web"}'] == 7
    assert found['sockmgr_service_worker_ends_total{how="crashed",service="web"}'] == 3
    assert 'sockmgr_service_rollout_deadline_seconds{service="web"}' not in found
    assert not [name for name in found if name.startswith("sockmgr_worker_")]


@pytest.mark.usefixtures("manager")
def test_the_docs_have_each_metric_with_its_type_and_labels() -> None:
    told = sockmgr("metrics", "--workers").stdout
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", told, re.MULTILINE))
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", DOCS.read_text(), re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == types
    for name, _, labels in rows:
        for found in re.findall(rf"^{name}\{{(.*)\}} ", told, re.MULTILINE):
            assert re.findall(r'(\w+)="', found) == sorted(re.findall(r"`(\w+)`", labels))


def test_without_a_manager_it_says_that_none_is_up_and_the_exit_code_is_3(path: Path) -> None:
    del path
    result = sockmgr("metrics")
    assert (result.exit_code, samples(result.stdout)) == (3, {"sockmgr_up": 0.0})
    assert "no manager answers" in result.stderr


def test_a_manager_that_hangs_is_not_up(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(str(path))
        hangs.listen()
        result = sockmgr("metrics", "--timeout", "0.1")
    assert (result.exit_code, samples(result.stdout)) == (4, {"sockmgr_up": 0.0})


@pytest.mark.usefixtures("manager")
def test_a_reader_that_has_gone_is_no_reason_for_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "sockmgr", "metrics"],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        ("--json", 2, "status has --json"),
        ("--listen nowhere", 1, "cannot listen on nowhere: allowed: tcp://HOST:PORT"),
        ("--listen udp://127.0.0.1:0", 1, "allowed: HOST:PORT, unix:///PATH"),
        ("--listen unix:///no/such/directory", 1, "there is no directory /no/such"),
    ],
)
def test_what_cannot_be_is_refused_and_it_is_said_why(arguments: str, code: int, why: str) -> None:
    result = sockmgr("metrics", *arguments.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert why in result.stderr


@pytest.mark.usefixtures("manager")
def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        result = sockmgr("metrics", "--listen", where)
    assert result.exit_code == 1
    assert f"cannot listen on tcp://{where}: address already in use" in result.stderr
    assert "no metrics are served; the manager goes on as it did" in result.stderr
    assert "another address with --listen" in result.stderr


# --- Over HTTP -----------------------------------------------------------------------------------


def test_it_waits_for_a_manager_and_asks_whichever_runs(path: Path) -> None:
    with Exporter(*ANYWHERE) as exporter:
        assert exporter.scrape() == {"sockmgr_up": 0.0}
        exporter.hear("sockmgr_up is 0: no manager answers")
        for _ in range(2):
            with serving(path):
                assert exporter.scrape()["sockmgr_up"] == 1
                exporter.hear("sockmgr_up is 1")
            assert exporter.scrape() == {"sockmgr_up": 0.0}
        assert exporter.end() == 0


@pytest.mark.usefixtures("manager")
def test_a_scrape_may_name_what_it_wants() -> None:
    with Exporter(*ANYWHERE) as exporter:
        assert samples(exporter.get("?name[]=sockmgr_up")) == {"sockmgr_up": 1.0}


@pytest.mark.usefixtures("manager")
def test_garbage_and_clients_that_say_nothing_keep_nobody_from_scraping() -> None:
    with Exporter(*ANYWHERE) as exporter:
        mute = [socket.create_connection(("127.0.0.1", exporter.port)) for _ in range(4)]
        for garbage in (b"\0\xff\r\n\r\n", b"GET\n", b"A" * 70000 + b"\r\n\r\n", b"\x16\x03\x01"):
            with socket.create_connection(("127.0.0.1", exporter.port)) as caller:
                caller.sendall(garbage)
        assert exporter.scrape()["sockmgr_up"] == 1
        for sock in mute:
            sock.close()


@pytest.mark.usefixtures("manager")
def test_a_socket_of_a_path_is_served_too(tmp_path: Path) -> None:
    where = tmp_path / "metrics.sock"
    with (
        Exporter("--listen", f"unix://{where}") as exporter,
        socket.socket(socket.AF_UNIX) as caller,
    ):
        assert exporter.url == f"unix://{where}"
        caller.connect(str(where))
        caller.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: caller.recv(65536), b""))
    assert b"sockmgr_up 1.0" in answer


@pytest.mark.usefixtures("manager")
def test_a_socket_from_systemd_is_served_and_needs_no_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with Exporter(passed=sock) as exporter:
            assert exporter.port == port
            assert exporter.scrape()["sockmgr_up"] == 1


@pytest.mark.parametrize(
    ("kind", "arguments", "code", "why"),
    [
        (socket.SOCK_STREAM, "--listen 127.0.0.1:0", 2, "leave out --listen"),
        (socket.SOCK_DGRAM, "", 1, "something else than one socket that listens"),
    ],
)
def test_a_socket_from_systemd_that_is_of_no_use_is_refused(
    kind: int, arguments: str, code: int, why: str
) -> None:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        with Exporter(*arguments.split(), passed=sock) as exporter:
            exporter.hear(why)
            assert exporter.wait() == code
