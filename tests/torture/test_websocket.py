"""A WebSocket that a server closes as it should is no loss, and each that it does not is one."""

from __future__ import annotations

import struct

import pytest

from sockmgr.torture.load.result import Outcome
from sockmgr.torture.load.websocket import GOING_AWAY, RESTARTS
from tests.torture.planted import BODY, Handler, Peer, judge, outcomes, says

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
ANSWER = bytes([0x81, len(BODY)]) + BODY
LONG = BODY[:-1] + b" " * 200 + b"}"
PING = b"\x89\x00"


def close(code: int) -> bytes:
    return b"\x88\x02" + struct.pack("!H", code)


def echoes(*, answer: bytes = ANSWER, last: bytes = close(1000)) -> Handler:
    """Make a handler that answers each message, and at the client's close says `last`."""

    async def handler(peer: Peer) -> None:
        head = await peer.request()
        assert b"\r\nUpgrade: websocket\r\n" in head
        await peer.send(UPGRADED + PING)
        while frame := await peer.some(6):
            opcode, length = frame[0] & 0x0F, frame[1] & 0x7F
            await peer.some(length)
            if opcode == 8:
                await peer.send(last)
                return
            for byte in answer:  # frames come as they come
                await peer.send(bytes([byte]))

    return handler


FATES = {
    "each message answered": (echoes(), Outcome.OK),
    "longer messages": (
        echoes(answer=b"\x81\x7e" + struct.pack("!H", len(LONG)) + LONG), Outcome.OK
    ),
    "asked to come back": (says(UPGRADED + ANSWER + close(GOING_AWAY)), Outcome.OK),
    "told of a restart": (says(UPGRADED, ANSWER, close(RESTARTS)), Outcome.OK),
    "closed too early": (says(UPGRADED, ANSWER, close(1000)), Outcome.BAD_BODY),
    "closed for an error": (says(UPGRADED, ANSWER, close(1011)), Outcome.BAD_BODY),
    "ended without a close": (says(UPGRADED, ANSWER), Outcome.TRUNC_MID),
    "ended in the handshake": (says(UPGRADED[:30]), Outcome.TRUNC_MID),
    "reset": (says(UPGRADED, ANSWER, reset=True), Outcome.RESET_MID),
    "refused by a status": (
        says(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), Outcome.HTTP_5XX
    ),
    "not upgraded": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Outcome.BAD_BODY),
    "answered by nonsense": (echoes(answer=b"\x81\x02hi"), Outcome.BAD_BODY),
    "masked": (echoes(answer=b"\x81\x82\0\0\0\0hi"), Outcome.BAD_BODY),
}  # fmt: skip


@pytest.mark.parametrize("fate", FATES)
def test_what_a_server_does_to_a_websocket_is_told_apart(fate: str) -> None:
    handler, outcome = FATES[fate]
    assert outcomes(judge(handler, "websocket:rate=40,s=0.06")) == {outcome}
