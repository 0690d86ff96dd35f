"""Who is at the node of a unix socket, and when it may be removed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sockmgr.kernel import unix_node

KINDS = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_is_removed_only_when_nobody_listens_there(
    tmp_path: Path, kind: socket.SocketKind
) -> None:
    path = tmp_path / "s"
    with unix_node.listen(path, kind, 1):
        assert path.stat().st_mode & 0o777 == 0o600
        assert unix_node.clear(path, kind) == os.getpid()
        assert path.exists()
    assert unix_node.clear(path, kind) is None
    assert not path.exists()
    assert unix_node.clear(path, kind) is None


def test_somebody_who_has_no_time_to_answer_still_listens(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with unix_node.listen(path, socket.SOCK_STREAM, 0), socket.socket(socket.AF_UNIX) as waits:
        waits.connect(str(path))  # unix(7): of a backlog of 0 there is room for one
        assert unix_node.clear(path, socket.SOCK_STREAM) == 0
    assert unix_node.clear(path, socket.SOCK_STREAM) is None


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("kept")
    with pytest.raises(FileExistsError, match="is not a socket"):
        unix_node.clear(path, socket.SOCK_STREAM)
    assert path.read_text() == "kept"


def test_another_node_at_a_path_has_another_identity(tmp_path: Path) -> None:
    path, other = tmp_path / "s", tmp_path / "t"
    assert unix_node.identity(path) is None
    assert unix_node.identity(Path("s" * 5000)) is None
    path.touch()
    other.touch()
    before = unix_node.identity(path)
    other.rename(path)
    assert before is not None
    assert unix_node.identity(path) != before


def test_the_groups_of_the_other_end_are_those_that_it_has() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert unix_node.groups(ours) == {os.getegid(), *os.getgroups()}
