"""Certificates: which file is at fault, passwords, and those of clients."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.worker.runtime import PROGRAMS, Worker, serving, started

TLS = PROGRAMS / "tls"
SITE = ("--certfile", "tls/site.pem", "--keyfile", "tls/site.key")
ENCRYPTED = ("--certfile", "tls/site.pem", "--keyfile", "tls/encrypted.key")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--certfile", "no.pem"), "certfile = no.pem: No such file or directory"),
        ((*SITE[:3], "no.key"), "keyfile = no.key: No such file or directory"),
        ((*SITE[:3], "tls"), "keyfile = tls: Is a directory"),
        ((*SITE[:3], "edges.py"), "keyfile = edges.py: it holds no key that can be used ("),
        (("--certfile", "edges.py", *SITE[2:]), "certfile = edges.py: it holds no certificate in"),
        (SITE[:2], "certfile = tls/site.pem: it holds no key that can be used ("),
        ((*SITE[:3], "tls/other.key"), "keyfile = tls/other.key: the key does not fit the certif"),
        (ENCRYPTED, "keyfile = tls/encrypted.key: the key is encrypted, and keyfile_password_file"),
        (
            (*ENCRYPTED, "--keyfile-password-file", "tls/ca.pem"),
            "keyfile_password_file = tls/ca.pem: it does not open tls/encrypted.key",
        ),
        (
            (*ENCRYPTED, "--keyfile-password-file", "no"),
            "keyfile_password_file = no: No such file or directory",
        ),
        (
            (*SITE, "--ca-certs", "tls/site.key", "--client-certs", "required"),
            "ca_certs = tls/site.key: it holds no certificate in PEM",
        ),
    ],
)
def test_an_error_names_the_file_that_is_at_fault(
    options: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    with started(tmp_path, *options) as worker:
        said = worker.child.rest()
        assert worker.status() == 3
    assert f"sockmgr.worker: cannot use {says}" in said
    assert "Enter PEM" not in said
    assert "BEGIN" not in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_key_that_the_user_may_not_read_is_named_and_not_its_certificate(tmp_path: Path) -> None:
    for name in ("site.pem", "site.key"):
        shutil.copy(TLS / name, tmp_path)
    (tmp_path / "site.key").chmod(0o600)
    (tmp_path / "main.py").write_text("""
import os, sys
os.setuid(65534)
from sockmgr.worker import tls
from sockmgr.worker.options import parse
tls.arguments(parse(["a:b", "--certfile=site.pem", "--keyfile=site.key"]))
""")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)
    with started(tmp_path, app="main:app", cwd=tmp_path) as worker:
        said = worker.child.rest()
    assert "cannot use keyfile = site.key: Permission denied" in said


def test_nobody_is_asked_for_a_password_at_the_terminal() -> None:
    command = [sys.executable, "-P", "-m", "sockmgr.worker", *ENCRYPTED, "edges:app"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(PROGRAMS)
        os.execv(command[0], command)
    said = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while piece := os.read(terminal, 4096):
            said += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert b"the key is encrypted" in said
    assert b"pass phrase" not in said


def test_a_key_is_opened_by_the_first_line_of_the_password_file(tmp_path: Path) -> None:
    options = (*ENCRYPTED, "--keyfile-password-file", "tls/password")
    with serving(tmp_path, *options) as worker:
        assert shake(worker) == "TLSv1.3"
        assert b"horse" not in Path(f"/proc/{worker.child.pid}/cmdline").read_bytes()


def shake(worker: Worker, certificate: str = "") -> str | None:
    with connected(worker, certificate) as client:
        return client.version()


def connected(worker: Worker, certificate: str = "") -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(TLS / "site.pem"))
    if certificate:
        context.load_cert_chain(PROGRAMS / certificate)
    sock = socket.create_connection(worker.address, timeout=30)
    return context.wrap_socket(sock, server_hostname="localhost")


def answer(worker: Worker, certificate: str = "") -> bytes:
    """Return what a client with this certificate gets; nothing if it is let down."""
    data = b""
    with (
        contextlib.suppress(ssl.SSLError, ConnectionResetError),
        connected(worker, certificate) as client,
    ):
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while piece := client.recv(4096):
            data += piece
    return data


def told(worker: Worker, certificate: str = "") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer(worker, certificate).partition(b"\r\n\r\n")[2])
    return found


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["httptools", "zttp"])
def test_the_application_is_told_what_certificate_a_client_has_shown(
    http: str, loop: str, tmp_path: Path
) -> None:
    options = (*SITE, "--ca-certs", "tls/ca.pem", "--client-certs", "optional", "--http", http)
    with serving(tmp_path, *options, "--loop", loop, app="scopes:app") as worker:
        found = told(worker, "tls/client.pem")
        assert (found["name"], found["certificates"]) == ("CN=till 7,O=Shop\\, Ltd", 1)
        assert found["version"] == 0x0304
        found = told(worker)
        assert (found["name"], found["certificates"]) == (None, 0)
        assert not answer(worker, "localhost.pem")


def test_only_clients_with_a_certificate_are_let_in_if_it_is_required(tmp_path: Path) -> None:
    options = (*SITE, "--ca-certs", "tls/ca.pem", "--client-certs", "required")
    with serving(tmp_path, *options, app="scopes:app") as worker:
        assert told(worker, "tls/client.pem")["certificates"] == 1
        assert not answer(worker)
