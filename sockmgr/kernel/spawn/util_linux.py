"""The commands of util-linux that a program is started through: prlimit(1) and setpriv(1)."""

from __future__ import annotations

import os
import pwd
import resource
import shutil

from sockmgr.errors import SpawnError
from sockmgr.kernel.accounts import account, group_number
from sockmgr.kernel.capabilities import CAP_SYS_RESOURCE, has_capability
from sockmgr.kernel.spawn.launch import Launch

# Names as in getrlimit(2) without RLIMIT_; prlimit(1) has an option of the same name for each.
LIMITS = frozenset({
    "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC",
    "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK",
})  # fmt: skip


def limits(launch: Launch) -> list[str]:
    """Return what stands before a command to set its resource limits; nothing without any."""
    if not launch.limits:
        return []
    options = []
    for name, soft, hard in launch.limits:
        _check_limit(name, soft, hard)
        values = ("unlimited" if value == -1 else str(value) for value in (soft, hard))
        options.append(f"--{name.lower()}={':'.join(values)}")
    return [_tool("prlimit", "limits"), *options, "--"]


def _check_limit(name: str, soft: int, hard: int) -> None:
    def height(value: int) -> float:
        return float("inf") if value == -1 else value

    if name not in LIMITS:
        allowed = ", ".join(sorted(LIMITS))
        raise SpawnError(f"there is no resource limit named {name!r}", do=f"use one of {allowed}")
    if height(soft) > height(hard):
        raise SpawnError(
            f"limit {name}: the soft limit {soft} is above the hard limit {hard}",
            do="lower the soft limit or raise the hard one",
        )
    number = getattr(resource, f"RLIMIT_{name}", None)
    if number is None:  # LOCKS: gone from Linux since 2.4
        return
    _, ours = resource.getrlimit(number)
    if height(hard) > height(ours) and not has_capability(CAP_SYS_RESOURCE):
        raise SpawnError(
            f"cannot raise the hard limit {name} to {hard}: the manager's own is {ours}",
            do=f"set Limit{name}={hard} in the manager's unit, or lower it in the configuration",
        )


def identity(launch: Launch) -> list[str]:
    """Return what stands before a command to change user and group; nothing if they are ours."""
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


def user_number(user: str) -> int:
    """Return the uid of a `user` as in Launch; -1 if there is none of that name any more."""
    try:
        return _user(user).pw_uid if user else os.geteuid()
    except SpawnError:
        return -1


def _user(name: str) -> pwd.struct_passwd:
    if entry := account(name):
        return entry
    if name.isdecimal():  # a uid without a name is fine, it has no supplementary groups
        return pwd.struct_passwd(("", "", int(name), int(name), "", "", ""))
    raise SpawnError(f"there is no user {name!r}", do="correct user, or add the user")


def _group(name: str) -> int:
    number = group_number(name)
    if number is None:
        do = "correct group, or add the group"
        raise SpawnError(f"there is no group {name!r}", do=do)
    return number


def _tool(name: str, purpose: str) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
    found = shutil.which(name, path=path)
    if found is None:
        raise SpawnError(
            f"cannot set {purpose}: {name} was not found in {path}",
            do="install util-linux, which it is part of",
        )
    return found
