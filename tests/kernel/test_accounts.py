"""Users and groups by name and by number."""

from __future__ import annotations

from sockmgr.kernel import accounts

NOBODY_HAS = "4294967000"


def test_root_is_found_by_name_and_by_number() -> None:
    assert (accounts.user_number("root"), accounts.user_number("0")) == (0, 0)
    assert (accounts.group_number("root"), accounts.group_number("0")) == (0, 0)
    assert accounts.user_name(0) == "root"
    group = accounts.group_entry(0)
    assert group is not None
    assert group.gr_name == "root"


def test_a_number_needs_no_entry_and_a_name_does() -> None:
    assert accounts.user_number(NOBODY_HAS) == accounts.group_number(NOBODY_HAS) == int(NOBODY_HAS)
    assert accounts.account(NOBODY_HAS) is None
    assert accounts.group_entry(int(NOBODY_HAS)) is None
    assert accounts.user_name(int(NOBODY_HAS)) == NOBODY_HAS
    assert accounts.user_number("no such user") is None
    assert accounts.group_number("no such group") is None


def test_what_only_looks_like_a_number_is_a_name() -> None:
    assert accounts.user_number("²") is None
