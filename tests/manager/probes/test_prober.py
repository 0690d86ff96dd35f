"""A probe of a server that misbehaves ends in time and says what was wrong."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from sockmgr.config.probe import HttpProbe, Probe, TcpProbe
from sockmgr.errors import ListenError
from sockmgr.manager.probes.prober import Prober, Reach
from sockmgr.manager.probes.warm_up import warm_up
from tests.helpers.pages import ROOT
from tests.manager.probes import servers
from tests.manager.probes.servers import Answer, byte_by_byte, saying, serving, without_end

UP = HttpProbe(path="/up", timeout=30.0)
HASTY = HttpProbe(path="/up", timeout=0.5)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CERT = ROOT / "tests" / "worker" / "programs" / "tls" / "site.pem"


def asked(probe: Probe, answer: Answer, tls: ssl.SSLContext | None = None, *, ours: bool) -> str:
    async def scenario() -> str:
        async with serving(answer, tls) as reach:
            return await Prober(probe, "http", reach, tls=ours).ask()

    return asyncio.run(scenario())


@pytest.mark.parametrize("stays", [False, True])
def test_a_probe_is_passed_by_the_whole_answer_whether_the_server_closes_or_not(
    stays: bool,
) -> None:
    assert asked(UP, saying(OK, stays=stays), ours=False) == ""


@pytest.mark.parametrize(
    ("probe", "answer", "why"),
    [
        (UP, saying(b"HTTP/1.1 500 No\r\n\r\n"), "answered 500 (expected 200)"),
        (
            UP,
            saying(b"HTTP/1.1 503 No\r\n\r\nno \x1b[31mdatabase"),
            "answered 503 (expected 200): 'no \\x1b[31mdatabase'",
        ),
        (
            UP,
            saying(b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n"),
            "answered 302 (expected 200), to /login",
        ),
        (UP, saying(), "closed the connection and answered nothing"),
        (UP, saying(OK[:-1]), "closed the connection in its answer, after 39 bytes"),
        (UP, saying(b"hello\r\n"), r"answered what is no HTTP/1.1: b'hello\r'"),
        (UP, without_end, "answered 200 with a body that has no end within 64 KiB"),
        (HASTY, saying(stays=True), "did not answer within 0.5 s"),
        (HASTY, saying(OK[:-1], stays=True), "did not end its answer within 0.5 s: 39 bytes came"),
        (HASTY, byte_by_byte, "did not end its answer within 0.5 s: "),
    ],
)
def test_a_probe_that_is_not_passed_says_what_was_seen(
    probe: HttpProbe, answer: Answer, why: str
) -> None:
    assert asked(probe, answer, ours=False).startswith(f"probe GET /up on http {why}")


def test_any_status_that_is_expected_passes_the_probe() -> None:
    answer = saying(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
    assert asked(HttpProbe(path="/", expect=("200", "3xx")), answer, ours=False) == ""
    said = asked(HttpProbe(path="/", expect=("200", "4xx")), answer, ours=False)
    assert "answered 302 (expected 200, 4xx)" in said


def test_a_probe_has_the_host_and_the_headers_that_the_application_wants() -> None:
    probe = HttpProbe(path="/", host="shop.example", headers=(("X-Token", "s3cret"),))
    assert asked(probe, servers.by_name, ours=False) == ""
    assert "answered 400" in asked(HttpProbe(path="/"), servers.by_name, ours=False)


def test_a_probe_by_tls_takes_any_certificate_and_says_if_there_is_no_tls() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERT, CERT.with_suffix(".key"))
    assert asked(UP, saying(OK), tls, ours=True) == ""
    assert "got no TLS" in asked(UP, servers.greeting, ours=True)
    assert asked(UP, saying(OK), tls, ours=False) != ""
    for host, passes in (("[::1]:443", True), ("shop.example:443", True), (".shop", False)):
        said = asked(HttpProbe(path="/", host=host, timeout=30.0), saying(OK), tls, ours=True)
        assert ("got no TLS" in said) is not passes


@pytest.mark.parametrize("error", [ListenError("no way"), ConnectionRefusedError(111, "Refused")])
def test_a_probe_that_cannot_be_sent_says_why(error: Exception) -> None:
    async def no_way() -> socket.socket:
        raise error

    for probe in (UP, TcpProbe()):
        prober = Prober(probe, "http", no_way, tls=False)
        why = "no way" if isinstance(error, ListenError) else "refused"
        assert asyncio.run(prober.ask()) == f"{probe} on http could not be sent: {why}"
        assert not prober.is_sent


def test_a_probe_by_tcp_is_passed_when_the_connection_is_accepted_and_not_before() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        way: Reach = lambda: servers.reach(listener.getsockname())  # noqa: E731
        alone = Prober(TcpProbe(timeout=0.5), "http", way, tls=False)
        assert asyncio.run(alone.ask()) == "probe by TCP on http was not accepted within 0.5 s"

        async def scenario() -> str:
            asking = asyncio.ensure_future(
                Prober(TcpProbe(timeout=30.0), "http", way, tls=False).ask()
            )
            await asyncio.sleep(0)
            await asyncio.to_thread(lambda: [listener.accept()[0].close() for _ in range(2)])
            return await asking

        assert asyncio.run(scenario()) == ""


# --- Warm-up -------------------------------------------------------------------------------------


def test_a_warm_up_asks_for_each_path_in_turn_and_takes_whatever_comes() -> None:
    """It counts as failed what is not answered, and what by a 5xx."""
    paths: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
        if paths[-1] == b"/a":
            await asyncio.sleep(0.2 if len(paths) == 1 else 0.0)
        status = {b"/a": b"404", b"/b?x=1": b"500"}.get(paths[-1])
        if status:
            writer.write(b"HTTP/1.1 " + status + b" No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def scenario() -> None:
        async with serving(answer) as reach:
            warmed = await warm_up(UP, ["/a", "/b?x=1", "/c"], 3, reach, tls=False, limit=60.0)
        assert (warmed.requests, warmed.failed, warmed.is_cut) == (9, 6, False)
        assert warmed.first >= 0.2 > warmed.last

    asyncio.run(scenario())
    assert paths == [b"/a", b"/b?x=1", b"/c"] * 3


def test_a_warm_up_that_takes_too_long_is_cut_short() -> None:
    async def scenario() -> None:
        async with serving(saying(stays=True)) as reach:
            warmed = await warm_up(UP, ["/"], 3, reach, tls=False, limit=0.2)
        assert (warmed.requests, warmed.is_cut) == (0, True)

    asyncio.run(scenario())
