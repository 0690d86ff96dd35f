"""Start a program through prlimit(1) and setpriv(1) of util-linux: its limits and its user."""

from __future__ import annotations

import os
import pwd

from sockmgr.errors import SpawnError
from sockmgr.kernel.accounts import account, group_number, user_number
from sockmgr.kernel.spawn.launch import Launch


def limits(launch: Launch) -> list[str]:
    """Return the words before a command that set its resource limits; [] if it has none."""
    if not launch.limits:
        return []
    options = []
    for name, soft, hard in launch.limits:
        values = ("unlimited" if value == -1 else str(value) for value in (soft, hard))
        options.append(f"--{name.lower()}={':'.join(values)}")
    return [_tool("prlimit", "limits"), *options, "--"]


def identity(launch: Launch) -> list[str]:
    """Return the words before a command that change its user and group; [] if they are ours."""
    if not (launch.user or launch.group):
        return []
    entry = _user(launch.user) if launch.user else None
    uid = os.geteuid() if entry is None else entry.pw_uid
    gid = _group(launch.group) if launch.group else entry.pw_gid if entry else os.getegid()
    if (uid, gid) == (os.geteuid(), os.getegid()) == (os.getuid(), os.getgid()) and uid != 0:
        return []
    if os.geteuid() != 0:
        raise SpawnError(
            f"cannot start {launch.executable} as {launch.user or launch.group}: "
            f"the manager runs as uid {os.geteuid()}, not as root",
            do="remove user and group from the configuration, or start the manager as root",
        )
    known = entry is not None and bool(entry.pw_name)
    options = [f"--reuid={uid}", f"--regid={gid}", "--init-groups" if known else "--clear-groups"]
    return [_tool("setpriv", "user and group"), *options, "--"]


def uid_of(user: str) -> int:
    """Return the uid of a program whose Launch has this `user`; -1 if that user was removed."""
    uid = user_number(user) if user else os.geteuid()
    return -1 if uid is None else uid


def _user(name: str) -> pwd.struct_passwd:
    if entry := account(name):
        return entry
    if name.isdecimal():  # a uid without an entry can be used; it has no supplementary groups
        return pwd.struct_passwd(("", "", int(name), int(name), "", "", ""))
    raise SpawnError(f"there is no user {name!r}", do="correct user, or add the user")


def _group(name: str) -> int:
    number = group_number(name)
    if number is None:
        do = "correct group, or add the group"
        raise SpawnError(f"there is no group {name!r}", do=do)
    return number


def _tool(name: str, purpose: str) -> str:
    import shutil  # noqa: PLC0415 - with its archive formats 0.3 MB, which most managers save

    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
    found = shutil.which(name, path=path)
    if found is None:
        raise SpawnError(
            f"cannot set {purpose}: {name} was not found in {path}",
            do="install util-linux, which it is part of",
        )
    return found
