"""The PROXY protocol: headers made by hand, from proxies that are trusted and from others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from sockmgr.worker.proxy_protocol import HeaderError, Proxied, binary, read, text
from tests.worker.passing import dispatching
from tests.worker.runtime import Client, Worker, serving

OPTIONS = ("--proxy-protocol", "--no-access-log")
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HERE, THERE = ("192.0.2.7", 4711), ("198.51.100.1", 443)
HERE6, THERE6 = ("2001:db8::7", 4711), ("2001:db8::1", 443)
TEXT = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"
TEXT6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"
LONGEST = b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n"
INET = socket.inet_aton(HERE[0]) + socket.inet_aton(THERE[0]) + struct.pack("!HH", 4711, 443)
INET6 = b"".join(socket.inet_pton(socket.AF_INET6, host) for host, _ in (HERE6, THERE6))
INET6 += struct.pack("!HH", 4711, 443)
TLS_TLV = b"\x20\x00\x05\x01\0\0\0\0"
NOOP_TLV = b"\x04\x00\x03\0\0\0"


def v2(family: int, rest: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


HEADERS = [
    (TEXT, Proxied(HERE, THERE)),
    (TEXT6, Proxied(HERE6, THERE6)),
    (b"PROXY UNKNOWN\r\n", Proxied()),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Proxied()),
    (LONGEST, Proxied()),
    (v2(0x11, INET), Proxied(HERE, THERE)),
    (v2(0x21, INET6), Proxied(HERE6, THERE6)),
    (v2(0x11, INET + NOOP_TLV + TLS_TLV), Proxied(HERE, THERE, tls=True)),
    (v2(0x11, INET + NOOP_TLV), Proxied(HERE, THERE)),
    (v2(0x31, bytes(216)), Proxied()),
    (v2(0x00, b""), Proxied()),
    (v2(0x00, b"", 0x20), Proxied()),
    (v2(0x11, INET, 0x20), Proxied()),
]
GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",  # of a handshake
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 4711 443\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 4711 443\r\n",
    b"PROXY TCP4  192.0.2.7 198.51.100.1 4711 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 \r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 4711 443\r\n",
    b"PROXY UNKNOWN" + b"f" * 100,
    v2(0x11, INET[:-1]),
    v2(0x21, INET),
    v2(0x12, INET),
    v2(0x41, INET),
    v2(0x11, INET, 0x31),
    v2(0x11, INET, 0x22),
    v2(0x11, INET + b"\x04\x00"),
    v2(0x11, INET + b"\x04\x00\x03\0\0"),
    v2(0x31, bytes(215)),
]


async def _read_in_pieces(data: bytes, at: int) -> tuple[Proxied, bytes]:
    """Send `data` in two pieces and read its header; return it with what is left behind it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        ours.send(data[:at])
        reading = asyncio.ensure_future(read(theirs))
        await asyncio.sleep(0)  # it takes the first piece
        ours.send(data[at:])
        ours.shutdown(socket.SHUT_WR)
        found = await reading
        return found, theirs.recv(4096)


@pytest.mark.parametrize(("header", "means"), HEADERS)
def test_a_header_split_at_any_byte_is_read_and_nothing_behind_it(
    header: bytes, means: Proxied
) -> None:
    async def all_of_them() -> None:
        for at in range(1, len(header) + 3):
            found = await _read_in_pieces(header + b"\n\r\nGET", at)
            assert found == (means, b"\n\r\nGET")

    asyncio.run(all_of_them())


@pytest.mark.parametrize("data", GARBAGE)
def test_what_is_not_exactly_a_header_is_refused(data: bytes) -> None:
    async def all_of_them() -> None:
        for at in (1, 13, len(data)):
            with pytest.raises(HeaderError):
                await _read_in_pieces(data, at)

    asyncio.run(all_of_them())


@pytest.mark.parametrize(("header", "_means"), HEADERS)
def test_a_header_that_ends_early_is_refused(header: bytes, _means: Proxied) -> None:
    async def all_of_them() -> None:
        for end in range(1, len(header)):
            with pytest.raises(HeaderError):
                await _read_in_pieces(header[:end], end)

    asyncio.run(all_of_them())


def test_nothing_but_these_errors_comes_of_any_bytes() -> None:
    for size in range(0, 300, 7):
        for byte in range(256):
            with contextlib.suppress(HeaderError):
                binary(bytes([0x21, byte, 0, 0]), bytes([byte]) * size)
            with contextlib.suppress(HeaderError):
                text(b"PROXY TCP4 " + bytes([byte]) * size + b"\r\n")


# --- Served --------------------------------------------------------------------------------------


def told(client: Client) -> dict[str, Any]:
    client.get()
    status, _, body = client.answer()
    assert status == "200"
    found: dict[str, Any] = json.loads(body)
    return found


def ends(found: dict[str, Any]) -> tuple[list[Any], list[Any], str]:
    return found["client"], found["server"], found["scheme"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["httptools", "h11", "zttp"])
def test_the_application_sees_the_client_that_the_proxy_names(
    http: str, loop: str, tmp_path: Path
) -> None:
    options = (*OPTIONS, "--http", http, "--loop", loop)
    with serving(tmp_path, *options, app="scopes:app") as worker:
        kept = worker.client(first=TEXT)
        for _ in range(2):
            assert ends(told(kept)) == ([*HERE], [*THERE], "http")
        spoken = v2(0x21, INET6 + TLS_TLV)
        assert ends(told(worker.client(first=spoken))) == ([*HERE6], [*THERE6], "https")
        own = told(worker.client(first=v2(0, b"", 0x20)))
        assert (own["client"][0], tuple(own["server"])) == ("127.0.0.1", worker.address)
        frame = worker.websocket(first=spoken).until(b"}").decode("latin-1")
        assert ends(json.loads(frame[frame.index("{") :] + "}")) == ([*HERE6], [*THERE6], "wss")


def test_tls_and_http2_come_behind_the_header(tmp_path: Path) -> None:
    options = (*OPTIONS, "--certfile", "localhost.pem", "--http2")
    with serving(tmp_path, *options, app="scopes:app") as worker:
        assert ends(told(worker.client(tls=True, first=TEXT))) == ([*HERE], [*THERE], "https")
        client = worker.http2(tls=True, first=TEXT)
        status, body = client.answer(client.get())
        assert (status, ends(json.loads(body))) == ("200", ([*HERE], [*THERE], "https"))
    with serving(tmp_path, *OPTIONS, "--http2", app="scopes:app") as worker:
        client = worker.http2(first=v2(0x11, INET))
        assert ends(json.loads(client.answer(client.get())[1])) == ([*HERE], [*THERE], "http")


def test_a_connection_that_the_manager_accepted_begins_with_the_header_too(tmp_path: Path) -> None:
    with dispatching(tmp_path, *OPTIONS, app="scopes:app") as worker:
        worker.hears("READY")
        good = worker.client(first=TEXT)
        assert ends(told(good)) == ([*HERE], [*THERE], "http")
        assert worker.client(first=b"GET / HTTP/1.1\r\n\r\n").closed()
        worker.reports(taken=2, closed=1)


def test_garbage_closes_the_connection_and_is_one_line_of_the_log(tmp_path: Path) -> None:
    with serving(tmp_path, *OPTIONS, app="scopes:app") as worker:
        for data in GARBAGE:
            assert worker.client(first=data[:107] + bytes(200)).closed()
        assert ends(told(worker.client(first=TEXT)))[0] == [*HERE]
        worker.stop()
        said = worker.child.rest()
    assert said.count("no PROXY header from 127.0.0.1: it begins with b'GET / HTTP/1") == 1
    assert said.count("PROXY") == 1


def test_a_proxy_that_only_looks_whether_we_are_there_is_nothing_to_speak_of(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, *OPTIONS, app="scopes:app") as worker:
        for reset in (False, True):
            with socket.create_connection(worker.address) as check:
                check.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", int(reset), 0)
                )
        assert ends(told(worker.client(first=TEXT)))[0] == [*HERE]
        worker.stop()
        assert "PROXY" not in worker.child.rest()


def test_a_peer_that_is_not_trusted_is_closed_whatever_it_says(tmp_path: Path) -> None:
    options = (*OPTIONS, "--trusted-proxy", "192.0.2.0/24")
    with serving(tmp_path, *options, app="scopes:app") as worker:
        assert worker.client(first=TEXT).closed()
        worker.stop()
        assert "from 127.0.0.1: it is none of trusted_proxies; closed" in worker.child.rest()


def test_a_forwarded_header_is_believed_of_the_client_that_the_proxy_names(tmp_path: Path) -> None:
    def scheme(worker: Worker) -> str:
        client = worker.client(first=TEXT)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\n\r\n")
        return str(json.loads(client.answer()[2])["scheme"])

    with serving(tmp_path, *OPTIONS, app="scopes:app") as worker:
        assert scheme(worker) == "http"
    trusted = ("--trusted-proxy=127.0.0.1", "--trusted-proxy=192.0.2.0/24")
    with serving(tmp_path, *OPTIONS, *trusted, app="scopes:app") as worker:
        assert scheme(worker) == "https"


def test_half_a_header_holds_up_a_drain_no_longer_than_its_deadline(tmp_path: Path) -> None:
    with serving(tmp_path, *OPTIONS, "--drain-timeout", "2", app="scopes:app") as worker:
        worker.client(first=TEXT[:20])
        assert ends(told(worker.client(first=TEXT)))[0] == [*HERE]
        worker.stop()
        assert worker.status() == 0
