"""What counts as an answer of HTTP, and what is said of anything else."""

from __future__ import annotations

import pytest

from sockmgr.manager.probes.reply import LIMIT, NoAnswer, Reply


def said(*pieces: bytes, end: bool = True) -> Reply:
    """Return the reply to these pieces, of which the last ends the connection."""
    reply = Reply()
    for piece in pieces:
        if reply.take(piece):
            return reply
    if end:
        reply.end()
    return reply


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length:2 \r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nanything until the end",
        b"HTTP/1.1 200\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_answer_is_whole_in_one_piece_and_byte_by_byte(answer: bytes) -> None:
    assert said(answer).status == 200
    assert said(*(answer[n : n + 1] for n in range(len(answer)))).status == 200


@pytest.mark.parametrize("status", [101, 204, 304])
def test_an_answer_without_a_body_is_whole_when_its_head_is(status: int) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: 9\r\n\r\n".encode()
    assert said(head, end=False).status == status


def test_of_a_long_body_whose_length_is_told_only_a_part_is_waited_for() -> None:
    reply = Reply()
    assert not reply.take(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
    assert not reply.take(b"x" * (LIMIT - 1))
    assert reply.take(b"x")


@pytest.mark.parametrize(
    ("body", "quoted"),
    [
        (b"Content-Length: 14\r\n\r\nno\n  database\n", "no database"),
        (b'\r\n{"db": "\xff"}', '{"db": "\N{REPLACEMENT CHARACTER}"}'),
        (b"Transfer-Encoding: chunked\r\n\r\n4;x\r\ndown\r\n0\r\n\r\n", "down"),
        (b"\r\n<!doctype html>\n<html><title>\nNo such host</title>", "No such host"),
        (b"\r\n<p>Sorry", ""),
        (b"Content-Length: 999\r\n\r\n" + b"x" * 999, "x" * 80),
        (b"Content-Length: 0\r\n\r\n", ""),
    ],
)
def test_the_beginning_of_a_body_can_be_quoted(body: bytes, quoted: str) -> None:
    answer = b"HTTP/1.1 500 No\r\n" + body
    assert said(answer).quoted == quoted
    assert said(*(answer[n : n + 1] for n in range(len(answer)))).quoted == quoted


def test_a_redirect_is_a_status_and_where_it_leads() -> None:
    found = said(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n")
    assert (found.status, found.location) == (302, "/login")


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([], "closed the connection and answered nothing"),
        ([b"HTTP/1.1 200 OK\r\nServer: x"], "closed the connection in its answer, after 26 bytes"),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"],
            "closed the connection in its answer",
        ),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"], "in its answer"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], r"answered what is no HTTP/1.1: b'SSH-2.0-OpenSSH_9.2"),
        ([b"\x15\x03\x03\x00\x02\x02\x46"], r"answered what is no HTTP/1.1: b'\x15\x03"),
        ([b"HTTP/2 200\r\n"], "answered what is no HTTP/1.1: b'HTTP/2 200"),
        ([b"HTTP/1.1 999 OK\r\n\r\n"], "answered what is no HTTP/1.1: b'HTTP/1.1 999 OK"),
        ([b"HTTP/1.1 200OK\r\n\r\n"], "answered what is no HTTP/1.1"),
        ([b"HTTP/1.1 200 OK\r\nX: ", b"x" * LIMIT], "answered with a head of more than 64 KiB"),
        (
            [b"HTTP/1.1 200 OK\r\n\r\n", b"x" * LIMIT, b"x"],
            "answered 200 with a body that has no end within 64 KiB",
        ),
    ],
)
def test_what_is_no_answer_is_told(pieces: list[bytes], why: str) -> None:
    with pytest.raises(NoAnswer) as caught:
        said(*pieces)
    assert why in str(caught.value)


def test_a_server_that_greets_its_clients_is_not_waited_for() -> None:
    with pytest.raises(NoAnswer, match="no HTTP"):
        said(b"220 mail", end=False)
