"""What the config says of a listener that is open already is set on its sockets."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from sockmgr.errors import ListenError
from sockmgr.kernel import queues
from sockmgr.manager.listeners.listener import Listener
from tests.helpers.listeners import opened, tcp, unix


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def backlogs(listener: Listener) -> set[int]:
    return {queues.backlog(queue) for queue in listener.queues}


@pytest.mark.parametrize("backlog", [9, 200])
def test_a_backlog_is_set_on_every_queue_and_is_what_a_repair_goes_by(backlog: int) -> None:
    with opened(replace(tcp(), backlog=100)) as listener:
        listener.lease(2)
        assert backlogs(listener) == {100}
        listener.apply(replace(listener.listen, backlog=backlog))
        assert backlogs(listener) == {backlog}
        listener.queues[1].listen(3)
        assert "shrank the backlog to 3" in str(listener.inspect())
        assert backlogs(listener) == {backlog}
        listener.lease(3)
        assert backlogs(listener) == {backlog}


def test_a_queue_that_is_shut_down_listens_again_with_the_new_backlog_and_where_it_was() -> None:
    with opened(tcp()) as listener:
        listener.lease(1)
        listener.queues[1].shutdown(socket.SHUT_RDWR)
        listener.apply(replace(listener.listen, backlog=9))
        assert "it listens again" in str(listener.inspect())
        assert backlogs(listener) == {9}


def test_a_mode_is_set_and_taken_back_and_stays_when_the_path_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(replace(unix(path), mode=None)) as listener:
        bound = mode(path)
        listener.apply(replace(listener.listen, mode=0o660))
        assert mode(path) == 0o660
        path.unlink()
        assert listener.inspect()
        assert mode(path) == 0o660
        listener.apply(replace(listener.listen, mode=None))
        assert mode(path) == bound


def test_a_mode_is_set_though_the_path_leads_elsewhere_and_nothing_else_is_touched(
    tmp_path: Path,
) -> None:
    path, other = tmp_path / "s", tmp_path / "other"
    other.touch(mode=0o640)
    with opened(unix(path)) as listener:
        path.unlink()
        path.symlink_to(other)
        listener.apply(replace(listener.listen, mode=0o660))
        assert mode(other) == 0o640
        path.unlink()
        listener.inspect()
        assert mode(path) == 0o660


def test_an_owner_that_is_not_there_is_refused_and_all_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(unix(path)) as listener:
        before, bound = listener.listen, mode(path)
        with pytest.raises(ListenError, match="there is no user 'no-such-user'"):
            listener.apply(replace(before, backlog=9, mode=0o660, user="no-such-user"))
        assert (listener.listen, mode(path)) == (before, bound)
        assert backlogs(listener) == {queues.reachable(before)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a path away")
def test_an_owner_is_set_and_one_that_is_left_out_again_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(unix(path)) as listener:
        given = replace(listener.listen, user="12345", group="54321")
        listener.apply(given)
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)
        listener.apply(replace(given, group=""))
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, os.getegid())
        listener.apply(replace(given, user="", group=""))
        assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), os.getegid())
