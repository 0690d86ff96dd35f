"""Read the table [listen] of a config: names, addresses, and which key goes with which address."""

from __future__ import annotations

import re

from sockmgr.config import address, placeholder, settings, shape
from sockmgr.config.document import Filled, Value
from sockmgr.config.spec import Listen


def listens(value: Value) -> tuple[Listen, ...]:
    """Return the listeners in the order of the table; raise ConfigError."""
    found: list[Listen] = []
    for name, entry in value.entries().items():
        if not re.fullmatch(placeholder.NAME, name) or len(name) > 64:
            raise entry.refused(
                "is not a name for a listener",
                do="allowed: letters, digits, _, - and ., beginning with a letter or _",
            )
        if name == placeholder.SLOT:
            raise entry.refused(
                "has the name that stands in a command for the number of a worker's slot",
                do="call it otherwise",
            )
        listen = _listen(name, entry)
        for other in found:
            # Also with port 0: a listener is identified by its address in the config.
            if other.address == listen.address:
                raise entry.refused(
                    f"has the address {listen.address}, which listen.{other.name} has",
                    do="give it an address of its own",
                )
        found.append(listen)
    return tuple(found)


def _listen(name: str, value: Value) -> Listen:
    is_table = isinstance(value.raw, dict)
    keys = value.table(settings.LISTENER) if is_table else {"address": value}
    if "address" not in keys:
        raise value.refused("has no address", do=f"add address = ...; allowed: {address.FORMS}")
    at = keys["address"]
    where, options = settings.LISTENER["address"].read(at)
    for option, text in options.items():
        if option in keys or option not in settings.UNIX_ONLY:
            raise at.wrong("mode=0660, user=NAME and group=NAME after the ?, each given once")
        keys[option] = Value(at.source, at.path, text, secret=isinstance(at.raw, Filled))
    for option in settings.UNIX_ONLY:
        if option in keys and not where.traits.has_path:
            raise keys[option].refused("has no meaning here", do="only unix:// paths have it")
    for option in settings.TCP_ONLY:
        if option in keys and not (where.traits.is_internet and where.traits.is_stream):
            raise keys[option].refused("has no meaning here", do="only tcp:// addresses have it")
    return Listen(name=name, **shape.read(settings.LISTENER, keys) | {"address": where})
