"""Look at unix listeners: may a proxy connect, and does the application trust its headers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sockmgr.config.config import Config
from sockmgr.config.spec import Listen
from sockmgr.doctor.finding import Check, Finding
from sockmgr.kernel import unix_node
from sockmgr.kernel.accounts import user_name
from sockmgr.kernel.listening import listening_names


def private(listens: Iterable[Listen], *, ahead: bool) -> Iterator[Finding]:
    """Find the sockets to which only their owner may connect (write permission, unix(7)).

    Looks at those that exist; with `ahead` also at those that a manager started here would make.
    """
    there = listening_names()
    for listen in listens:
        path = listen.address.path
        if not listen.address.traits.has_path or not (path in there or ahead):
            continue
        if path in there:
            mode, owner = _found(Path(path))
        else:
            mode = 0o777 & ~unix_node.umask() if listen.mode is None else listen.mode
            owner = listen.user or user_name(os.geteuid())
        if not mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield Check.SOCKET_PRIVATE.found(
                subject=f"listen.{listen.name}",
                what=f"only {owner} may connect to {path} (mode {mode:04o})",
                why="a proxy that runs as another user gets `Permission denied`, and its clients "
                "502",
                fix=f'listen.{listen.name} = "{listen.address}?mode=0660&group=GROUP" with a group '
                "that the proxy is in (www-data for Debian's nginx), or mode=0666 for everybody",
            )


def _found(path: Path) -> tuple[int, str]:
    try:
        found = path.stat()
    except OSError:  # we may not search its directory, or it was just removed
        return stat.S_IWOTH, ""
    return stat.S_IMODE(found.st_mode), user_name(found.st_uid)


def unbelieved(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Find applications that believe no proxy on a unix socket, because it has no IP address."""
    listens = config.listens()
    for service in config.services:
        unix = [name for name in service.listen if listens[name].address.traits.has_path]
        believed = service.http.trusted_proxies
        if believed is None:
            said = {**environ, **dict(service.env)}.get("FORWARDED_ALLOW_IPS")
            believed = ("this machine",) if said is None else tuple(said.split(","))
        if service.app and unix and believed and "*" not in believed:
            yield Check.PROXY_UNBELIEVED.found(
                subject=f"service.{service.name}",
                what=f"service.{service.name} believes no proxy that comes by listen.{unix[0]}",
                why="X-Forwarded-For and -Proto are ignored there: the client is unknown, and the "
                "scheme is http",
                fix=f'trusted_proxies = ["*"] in service.{service.name}.http, if only the proxy '
                "may connect; [] if there is none",
            )
