"""Which limits of a service cannot be had: on this machine, or by a manager that runs."""

from __future__ import annotations

from collections.abc import Iterator

from sockmgr.config.config import ServiceConfig
from sockmgr.kernel import own_cgroups
from sockmgr.kernel.delegation import Delegation


def unlimited(
    service: ServiceConfig, ours: Delegation | str | None = None
) -> Iterator[tuple[str, str]]:
    """Yield the keys of `resources` that have no effect, and why.

    `ours` is what a manager has, or why it has nothing; None: what any manager here could have.
    """
    root = own_cgroups.root()
    ours = ours or Delegation(path=root, leaf=root)
    found: dict[str, str] = {}
    for write in service.resources.writes():
        if isinstance(ours, str):
            found[write.key] = ours
        elif write.controller not in ours.controllers:
            found[write.key] = ours.why_without(write.controller)
    for why in dict.fromkeys(found.values()):
        keys = ", ".join(key for key in found if found[key] == why)
        yield f"service.{service.name}.resources: {keys}", why
