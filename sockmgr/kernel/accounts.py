"""Look up users and groups of this machine, by name or number."""

from __future__ import annotations

import grp
import pwd


def account(user: str) -> pwd.struct_passwd | None:
    """Return the entry of a user, given as a name or a uid; None if there is none."""
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        return None


def user_number(user: str) -> int | None:
    """Return the uid of a user, given as a name or a uid; None if no user has that name."""
    if user.isdecimal():
        return int(user)
    entry = account(user)
    return entry.pw_uid if entry else None


def group_number(group: str) -> int | None:
    """Return the gid of a group, given as a name or a gid; None if no group has that name."""
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def user_name(uid: int) -> str:
    """Return the name of a user for people to read, which is the uid if it has no name."""
    entry = account(str(uid))
    return entry.pw_name if entry else str(uid)


def group_entry(gid: int) -> grp.struct_group | None:
    """Return the entry of a group, with its members; None if there is none."""
    try:
        return grp.getgrgid(gid)
    except KeyError:
        return None
