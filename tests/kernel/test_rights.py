"""Descriptors that come with a message: which are returned, and who else inherits them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from sockmgr.kernel import rights


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def _receive(sock: socket.socket, kind: int = socket.SCM_RIGHTS) -> list[int]:
    _, ancillary, _, _ = sock.recvmsg(16, 1024, socket.MSG_CMSG_CLOEXEC)
    return rights.received(ancillary, kind)


def test_all_descriptors_of_a_message_are_returned_in_order_and_not_inherited(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sent = [os.memfd_create("one"), os.memfd_create("two")]
    socket.send_fds(pair[0], [b"x"], sent)
    found = _receive(pair[1])
    assert [os.fstat(fd).st_ino for fd in found] == [os.fstat(fd).st_ino for fd in sent]
    assert not any(map(os.get_inheritable, found))
    for fd in sent + found:
        os.close(fd)


def test_a_message_without_descriptors_has_none(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].send(b"x")
    assert _receive(pair[1]) == []


def test_another_kind_of_ancillary_data_is_left_out(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    pair[0].send(b"x")
    assert _receive(pair[1]) == []
