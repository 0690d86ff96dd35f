"""What systemd is given to hold for the next manager, and what is said when it does not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.systemd.protocol import SystemdSocket
from sockmgr.systemd.store import FdStore
from sockmgr.systemd.unit import fd_store_max
from tests.helpers.fake_systemd import FakeSystemd

pytestmark = pytest.mark.usefixtures("speaker")


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSystemd]:
    with FakeSystemd(tmp_path) as found:
        monkeypatch.setenv("NOTIFY_SOCKET", str(found.path))
        yield found


@pytest.fixture
def fds() -> Iterator[list[int]]:
    found = [os.memfd_create(f"state {n}") for n in range(2)]
    yield found
    for fd in found:
        os.close(fd)


def told(systemd: FakeSystemd) -> list[tuple[dict[str, str], int]]:
    """Return the fields of each message, and how many descriptors came with it."""
    assert SystemdSocket().wait_until_read(10)
    return [(dict(each.fields), each.fds) for each in systemd.told if "BARRIER" not in each]


def test_what_is_kept_goes_in_one_message_and_stays_when_it_hangs_up(
    systemd: FakeSystemd, fds: list[int]
) -> None:
    FdStore(SystemdSocket(), None).keep("web@7.2", fds)
    assert told(systemd) == [({"FDSTORE": "1", "FDNAME": "web@7.2", "FDPOLL": "0"}, 2)]


def test_another_thing_of_the_same_name_takes_its_place(
    systemd: FakeSystemd, fds: list[int]
) -> None:
    store = FdStore(SystemdSocket(), 2)
    store.keep("@lease", fds[:1])
    store.keep("@lease", fds[1:])
    assert told(systemd)[1:] == [
        ({"FDSTOREREMOVE": "1", "FDNAME": "@lease"}, 0),
        ({"FDSTORE": "1", "FDNAME": "@lease", "FDPOLL": "0"}, 1),
    ]
    assert store.held == {"@lease": 1}


def test_what_is_forgotten_is_removed_and_what_was_never_kept_is_not(
    systemd: FakeSystemd, fds: list[int]
) -> None:
    store = FdStore(SystemdSocket(), None)
    store.keep("web@7.2", fds)
    store.forget("web@7.2")
    store.forget("web@7.2")
    assert [fields for fields, _ in told(systemd)][1:] == [
        {"FDSTOREREMOVE": "1", "FDNAME": "web@7.2"}
    ]
    assert not store.held


def test_what_does_not_fit_is_told_and_not_sent(
    systemd: FakeSystemd, fds: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    store = FdStore(SystemdSocket(), 3)
    store.keep("web@1.1", fds)
    assert (store.full, store.flaw) == (False, "")
    store.keep("web@1.2", fds)
    store.keep("web@1.3", fds)
    assert store.full
    assert store.flaw == "fd store full: 6 of 3 descriptors, raise FileDescriptorStoreMax="
    assert len(told(systemd)) == 1
    assert len(caplog.records) == 1
    store.forget("web@1.2")
    store.forget("web@1.3")
    assert not store.full


def test_there_is_room_again_when_something_was_forgotten(
    systemd: FakeSystemd, fds: list[int]
) -> None:
    store = FdStore(SystemdSocket(), 2)
    store.keep("web@1.1", fds)
    store.keep("web@2.1", fds)
    store.forget("web@1.1")
    store.keep("web@2.1", fds)
    assert (store.full, store.held) == (False, {"web@2.1": 2})
    assert told(systemd)[-1][1] == 2


def test_what_a_predecessor_left_counts(systemd: FakeSystemd, fds: list[int]) -> None:
    store = FdStore(SystemdSocket(), 3)
    store.inherit({"web@1.1": fds})
    store.keep("web@1.1", fds)  # the same again takes no more room
    store.keep("web@1.2", fds)
    assert store.full
    assert {fields["FDNAME"] for fields, _ in told(systemd)} == {"web@1.1"}


def test_a_new_systemd_tells_the_limit_itself() -> None:
    assert fd_store_max({"FDSTORE": "512", "NOTIFY_SOCKET": "/run/notify"}) == 512


def test_without_systemd_there_is_no_limit_to_be_known() -> None:
    assert fd_store_max({}) is None
