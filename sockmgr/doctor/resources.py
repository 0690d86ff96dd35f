"""Look whether the limits of `resources` can be had: here, by a unit, by a manager that runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from sockmgr.config.config import ServiceConfig
from sockmgr.doctor.finding import Check, Finding
from sockmgr.doctor.unit_files import UnitFile
from sockmgr.kernel.delegation import Delegation
from sockmgr.launch.unlimited import unlimited
from sockmgr.systemd.units import DELEGATE_SUBGROUP

_WHY = "its workers run without, and one may take the memory of all others"


def examine(
    services: Iterable[ServiceConfig], check: Check, ours: Delegation | str | None = None
) -> Iterator[Finding]:
    """Look which limits a manager cannot set that has `ours`; None: any manager here."""
    for keys, why in (found for service in services for found in unlimited(service, ours)):
        yield check.found(
            subject=keys.partition(":")[0],
            what=f"{keys}: no effect: {why}",
            why=_WHY,
            fix="boot with cgroups v2 (systemd.unified_cgroup_hierarchy=1), and have the unit as "
            f"`sockmgr units` writes it for systemd {DELEGATE_SUBGROUP} or later",
        )


def of_unit(
    service: UnitFile, services: Collection[ServiceConfig], version: int | None
) -> Iterator[Finding]:
    """Look whether a unit lets a manager set limits; `version` is that of systemd, if known."""
    if not any(each.resources.writes() for each in services):
        return
    if service.last("Service", "Delegate").lower() in ("", "no", "0", "false", "off", "n", "f"):
        what, fix = "there is no Delegate=", "Delegate=yes"
    elif service.is_on("Service", "ProtectControlGroups"):
        what, fix = "ProtectControlGroups= lets no cgroup be made", "ProtectControlGroups=no"
    elif version is not None and version < DELEGATE_SUBGROUP:
        what, fix = f"systemd {version} has no DelegateSubgroup=", "DelegateSubgroup=manager"
    elif not service.last("Service", "DelegateSubgroup"):
        what, fix = "there is no DelegateSubgroup=", "DelegateSubgroup=manager"
    else:
        return
    fix = f"{fix} (systemctl edit {service.name}), with systemd {DELEGATE_SUBGROUP} or later"
    yield service.finding(Check.UNIT_DELEGATE, what, _WHY, fix)
