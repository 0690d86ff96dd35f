"""Which proxies are believed, and as what a client is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sockmgr.worker.options import parse
from sockmgr.worker.peer import plain
from tests.worker.runtime import Worker, serving

HEADERS = b"X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n"


def told(worker: Worker, headers: bytes = b"") -> dict[str, Any]:
    client = worker.client()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
    found: dict[str, Any] = json.loads(client.answer()[2])
    return found


@pytest.mark.parametrize(
    "trusted", ["127.0.0.1", "127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:127.0.0.0/104"]
)
def test_a_proxy_by_ipv4_is_believed_at_a_listener_for_both(trusted: str, tmp_path: Path) -> None:
    options = ("--trusted-proxy", trusted)
    with serving(tmp_path, *options, app="scopes:app", dual_stack=True) as worker:
        found = told(worker, HEADERS)
        assert (found["client"][0], found["scheme"]) == ("203.0.113.9", "https")


def test_a_client_by_ipv4_is_shown_as_such_to_the_application_and_in_the_log(
    tmp_path: Path,
) -> None:
    options = ("--trusted-proxy", "192.0.2.1")
    with serving(tmp_path, *options, app="scopes:app", dual_stack=True) as worker:
        found = told(worker, HEADERS)
        assert (found["client"][0], found["scheme"]) == ("127.0.0.1", "http")
        assert found["server"] == [*worker.address]
        worker.stop()
        said = worker.child.rest()
    assert " 127.0.0.1:" in said
    assert "::ffff" not in said


def test_a_websocket_tells_the_same(tmp_path: Path) -> None:
    with serving(tmp_path, app="scopes:app", dual_stack=True) as worker:
        frame = worker.websocket().until(b"}").decode("latin-1")
        assert json.loads(frame[frame.index("{") :] + "}")["client"][0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("allow", "options", "scheme"),
    [
        ("192.0.2.1", (), "http"),
        ("192.0.2.1, 127.0.0.1", (), "https"),
        ("*", (), "https"),
        ("", (), "http"),
        ("192.0.2.1", ("--trusted-proxy", "127.0.0.1"), "https"),
        ("*", ("--trusted-proxy", ""), "http"),
    ],
)
def test_forwarded_allow_ips_holds_where_trusted_proxies_is_not_set(
    allow: str, options: tuple[str, ...], scheme: str, tmp_path: Path
) -> None:
    with serving(tmp_path, *options, app="scopes:app", FORWARDED_ALLOW_IPS=allow) as worker:
        assert told(worker, HEADERS)["scheme"] == scheme


def test_this_machine_is_trusted_if_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    assert parse(["a:b"]).trusted_proxies == ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/95", "::ffff:0:0/95"),
        ("::ffff:nonsense", "::ffff:nonsense"),
        ("2001:db8::1", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("*", "*"),
    ],
)
def test_only_what_maps_an_address_of_ipv4_is_written_as_one(text: str, shown: str) -> None:
    assert plain(text) == shown
