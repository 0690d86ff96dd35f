"""The words that go to systemd and journald are the same, whoever speaks them."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from sockmgr.systemd import protocol

pytestmark = pytest.mark.usefixtures("speaker")


def test_nothing_is_sent_where_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not protocol.notify("READY=1", [])


def test_a_message_reaches_an_abstract_socket_with_its_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"sockmgr-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waiting:
        waiting.bind(f"\0{name}")
        state = os.memfd_create("state")
        assert protocol.notify("FDSTORE=1\nFDNAME=\N{SNOWMAN}", [state, state])
        message, fds, _, _ = socket.recv_fds(waiting, 100, 10)
        assert message.decode() == "FDSTORE=1\nFDNAME=\N{SNOWMAN}"
        assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(state).st_ino] * 2
        for fd in (state, *fds):
            os.close(fd)


@pytest.mark.parametrize("address", ["/no/such/socket", "vsock:2:1234"])
def test_a_message_that_cannot_be_sent_is_an_error(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with pytest.raises(OSError, match=r"."):
        protocol.notify("READY=1", [])


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("http:admin", {3: "http", 4: "admin"}),
        ("http:", {3: "http", 4: ""}),
        (None, {3: "unknown", 4: "unknown"}),
    ],
)
def test_descriptors_have_the_names_that_systemd_gives_them(
    monkeypatch: pytest.MonkeyPatch, names: str | None, found: dict[int, str]
) -> None:
    passed(monkeypatch, names)
    assert protocol.listen_fds() == found


@pytest.mark.parametrize("names", ["http", "http:admin:more", ""])
def test_another_number_of_names_is_an_error(monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    passed(monkeypatch, names)
    with pytest.raises(OSError, match="Invalid argument"):
        protocol.listen_fds()


def passed(monkeypatch: pytest.MonkeyPatch, names: str | None) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
    if names is not None:
        monkeypatch.setenv("LISTEN_FDNAMES", names)


def test_a_stream_that_we_open_begins_as_journald_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaker: str
) -> None:
    if speaker != "ourselves":
        pytest.skip("libsystemd does not let us say where journald is")
    path = str(tmp_path / "stdout")
    monkeypatch.setattr(protocol, "STREAMS", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as journald:
        journald.bind(path)
        journald.listen()
        fd = protocol.open_stream("web@7.2")
        stream, _ = journald.accept()
        with stream, socket.socket(fileno=fd) as writer:
            assert stat.S_ISSOCK(os.fstat(fd).st_mode)
            assert not os.get_inheritable(fd)
            writer.sendall(b"<3>no database\n")
            writer.close()
            assert stream.makefile("rb").read() == b"web@7.2\n\n6\n1\n0\n0\n0\n<3>no database\n"
