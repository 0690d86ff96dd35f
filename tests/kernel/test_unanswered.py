"""A client that waits for an answer is seen from outside, on a first request and on later ones."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from sockmgr.kernel import unanswered
from sockmgr.kernel.unanswered import Unanswered
from tests.helpers.children import wait_until

SILENT = 60_000
FAMILIES = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}


@contextlib.contextmanager
def connection(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the client's and the server's end of a connection."""
    with (
        socket.create_server((host, 0), family=FAMILIES[host]) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        accepted, _ = listener.accept()
        with accepted:
            yield client, accepted


def waiting(accepted: socket.socket, silent: int = SILENT) -> frozenset[Unanswered]:
    return unanswered.to_port(accepted.family, accepted.getsockname()[1], silent)


@pytest.mark.parametrize("host", FAMILIES)
def test_a_client_waits_from_its_connection_to_the_first_answer(host: str) -> None:
    with connection(host) as (client, accepted):
        (connected,) = seen = waiting(accepted)
        assert connected.sent == 0
        client.send(b"GET / HT")
        assert waiting(accepted) == seen == unanswered.still(seen, SILENT)
        accepted.send(b"HTTP/1.1 200 OK")
        assert not unanswered.still(seen, SILENT)


def test_a_client_of_a_kept_connection_waits_from_a_request_to_its_answer() -> None:
    with connection() as (client, accepted):
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        accepted.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert not waiting(accepted)
        # The kernel tells times in ticks of its clock: in the tick of the answer, none is later.
        wait_until(lambda: client.send(b"GET") and waiting(accepted), what="it is seen to wait")
        seen = waiting(accepted)
        assert {each.sent for each in seen} == {1}
        accepted.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert not unanswered.still(seen, SILENT)


def test_who_is_silent_or_gone_is_not_waited_for() -> None:
    with connection() as (client, accepted):
        seen = waiting(accepted)
        assert seen
        assert not waiting(accepted, silent=0)
        assert not unanswered.still(seen, silent=0)
        client.close()
        assert not unanswered.still(seen, SILENT)


def test_others_on_the_port_are_not_mistaken_for_a_connection_that_is_gone() -> None:
    with connection() as (client, accepted):
        seen = waiting(accepted)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()  # with a reset, so that the address is free at once
        with contextlib.suppress(ConnectionError):
            accepted.recv(1)
        assert not unanswered.still(seen, SILENT)
