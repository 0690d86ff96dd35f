"""What `check` finds out of a certificate and of an interpreter, before a reload does."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.config.config import parse
from sockmgr.errors import ConfigError
from sockmgr.launch import resolve
from sockmgr.launch.examination import examine

TLS = Path(__file__).parents[1] / "worker" / "programs" / "tls"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with certificates that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        for file in TLS.iterdir():
            shutil.copy(file, name)
            Path(name, file.name).chmod(0o644)
        yield Path(name)


def found(folder: Path, keys: str, http: str = "") -> list[str]:
    text = f"""
[listen]
http = "tcp://127.0.0.1:0"
[service.web]
app = "shop:app"
cwd = "{folder}"
{keys}
[service.web.http]
{http}
"""
    config = parse(text.encode(), file="shop.toml")
    (service,) = config.services
    return list(examine(service, resolve.prepare(service, config.listens(), os.environ).spec()))


SITE = 'certfile = "site.pem"\nkeyfile = "site.key"'
ENCRYPTED = 'certfile = "site.pem"\nkeyfile = "encrypted.key"'


def test_a_certificate_that_can_be_used_is_nothing_to_speak_of(folder: Path) -> None:
    assert found(folder, "") == []
    assert found(folder, "", SITE) == []
    assert found(folder, "", f'{ENCRYPTED}\nkeyfile_password_file = "password"') == []
    assert found(folder, "", f'{SITE}\nca_certs = "ca.pem"\nclient_certs = "required"') == []


@pytest.mark.parametrize(
    ("http", "says"),
    [
        ('certfile = "no.pem"', "cannot use certfile = .*no.pem: No such file"),
        ('certfile = "site.pem"\nkeyfile = "other.key"', "keyfile = .*other.key: the key does not"),
        (ENCRYPTED, "keyfile = .*encrypted.key: the key is encrypted"),
        (f'{SITE}\nca_certs = "no"\nclient_certs = "optional"', "ca_certs = .*no: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(http: str, says: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"service.web.http: .*{says}"):
        found(folder, "", http)


def test_a_certificate_that_has_expired_is_warned_of(folder: Path) -> None:
    (flaw,) = found(folder, "", 'certfile = "expired.pem"\nkeyfile = "site.key"')
    assert flaw == (
        "service.web.http.certfile = expired.pem: the certificate has expired: clients refuse it"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start workers as another user")
def test_a_key_that_the_user_of_the_service_may_not_read_is_named(folder: Path) -> None:
    assert found(folder, 'user = "nobody"', SITE) == []
    (folder / "site.key").chmod(0o600)
    assert found(folder, "", SITE) == []
    with pytest.raises(ConfigError) as caught:
        found(folder, 'user = "nobody"', SITE)
    assert f"keyfile = site.key: the user nobody may not read {folder}/site.key" in str(
        caught.value
    )


def test_an_interpreter_without_the_runtime_is_named_with_what_to_install(folder: Path) -> None:
    assert found(folder, f'python = "{sys.executable}"') == []
    bare = folder / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(ConfigError) as caught:
        found(folder, f'python = "{bare}"')
    assert "it cannot run the application: ModuleNotFoundError: No module named " in str(
        caught.value
    )
    assert f"{bare} -m pip install 'sockmgr[asgi]'" in caught.value.do
