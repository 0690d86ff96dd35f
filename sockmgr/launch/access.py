"""Who may ask a manager for what, by the user and the groups of who asks. Looks up groups only."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sockmgr.api.varlink import Method
from sockmgr.config.manager_keys import Control
from sockmgr.errors import ConfigError
from sockmgr.kernel.accounts import group_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The gids whose members may ask, and group (-1: our own) and mode of the socket for that.

    Members of `group` may call all `methods` (None: every one), by their verbs, and look; those of
    `readers` may look.
    """

    group: int | None = None
    readers: int | None = None
    methods: Collection[str] | None = None
    gid: int = -1
    mode: int = 0o600

    def may_call(self, method: Method[Any, Any], uid: int, gids: Collection[int]) -> bool:
        if uid in (0, os.geteuid()):
            return True
        if not method.changes:
            return self.group in gids or self.readers in gids
        return self.group in gids and (self.methods is None or method.verb in self.methods)


def resolve(control: Control) -> Access:
    """Return who may do what by the groups of this moment; raise ConfigError."""
    group = group_id("control.group", control.group)
    readers = group_id("control.readers", control.readers)
    mode = control.mode
    if mode is None:
        mode = (0o600, 0o660, 0o666)[bool(control.group) + bool(control.readers)]
    gid = next((gid for gid in (group, readers) if gid is not None), -1)
    return Access(group=group, readers=readers, methods=control.methods, gid=gid, mode=mode)


def group_id(key: str, group: str) -> int | None:
    """Return the gid of a group, None for ""; raise ConfigError, in which `key` is its place."""
    if not group:
        return None
    if (gid := group_number(group)) is None:
        raise ConfigError(
            f"{key} = {group}: there is no such group", do="add the group, or correct it"
        )
    return gid
