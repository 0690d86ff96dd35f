"""A cgroup for each worker, where we may make one, with its limits; and where not, it is said why.

A worker without one runs in the manager's, and is what its session and its parents tell. What fails
here keeps no worker from being started, and changes nothing for those that run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Spec
from sockmgr.kernel.delegation import Delegation, Group
from sockmgr.kernel.procfs import tree
from sockmgr.log import Log
from sockmgr.terminal.format import size

log = Log("sockmgr")

ALWAYS = "memory"  # so that it can be seen how much each worker uses


class Cgroups:
    """Those of all workers of a manager. Without `found` no worker has one."""

    def __init__(self, found: Delegation | str = "") -> None:
        """Move the manager, and who else is in its cgroup, to where they may stay."""
        self._ours = found if isinstance(found, Delegation) else None
        self._trouble = found if isinstance(found, str) else ""
        self._told: dict[str, set[str]] = {}  # what was said, by service
        self._left: list[Group] = []  # that could not be removed yet
        try:
            if self._ours:
                self._ours.settle()
        except OSError as error:
            self._trouble = f"{self._ours and self._ours.path}: {error.strerror}"
            self._ours = None
        if self._ours:
            controllers = " ".join(self._ours.controllers) or "none"
            log.info("workers get cgroups", below=self._ours.path, controllers=controllers)
        elif self._trouble:
            log.info("workers get no cgroups", because=self._trouble,
                     means="they are process groups, and `resources` have no effect")  # fmt: skip

    def joined(self, worker: str, spec: Spec, pid: int) -> Group | None:
        """Put a worker that was just started into a cgroup of its own; return that, if it is."""
        if self._ours is None:
            self._tell(spec.service, dict.fromkeys(spec.resources.keys, self._trouble))
            return None
        group = None
        try:
            self._left = [each for each in self._left if not each.remove()]
            group = self._ours.make(worker)
            self._limit(self._ours, group, spec)
            for each in tree(pid):  # it may have started something meanwhile
                group.add(each)
        except OSError as error:
            self._end(group)
            if not self._trouble:
                log.warning(EventKind.NO_CGROUP, worker=worker, error=error,
                            means="workers that are started now are process groups")  # fmt: skip
            self._trouble = f"no cgroup can be made: {error.strerror}"
            self._tell(spec.service, dict.fromkeys(spec.resources.keys, self._trouble))
            return None
        if self._trouble:
            log.info("workers get cgroups again", worker=worker)
            self._trouble = ""
        return group

    def of(self, pid: int) -> Group | None:
        """Return the cgroup of a worker that another manager has started, if it has one."""
        return self._ours.group_of(pid) if self._ours else None

    def ended(self, worker: str, spec: Spec, group: Group | None) -> None:
        """Log if it was killed for its memory, and remove its cgroup."""
        if why := out_of_memory(group, spec):
            log.error(EventKind.OUT_OF_MEMORY, worker=worker, why=why)
        self._end(group)

    def _end(self, group: Group | None) -> None:
        with contextlib.suppress(OSError):  # not ours any more
            if group and not group.remove():
                self._left.append(group)

    def _limit(self, ours: Delegation, group: Group, spec: Spec) -> None:
        writes = spec.resources.writes()
        missing = ours.enable({ALWAYS, *(write.controller for write in writes)})
        failed: dict[str, str] = {}
        for write in writes:
            try:
                why = missing.get(write.controller, "")
                if not why:
                    group.write(write.file, write.value)
            except OSError as error:
                why = f"{write.file}: {error.strerror}"
            failed |= {write.key: why} if why else {}
        self._tell(spec.service, failed)

    def _tell(self, service: str, failed: Mapping[str, str]) -> None:
        """Say once which keys have no effect, and why, until they have one again."""
        told, self._told[service] = self._told.get(service, set()), set(failed.values())
        for why in sorted(self._told[service] - told):
            keys = ", ".join(key for key, found in failed.items() if found == why)
            log.warning(EventKind.NO_RESOURCES, service=service, because=why, keys=keys)


def out_of_memory(group: Group | None, spec: Spec) -> str:
    """Say that the kernel has killed a process of a worker for its memory; "" if it has not."""
    if group is None or not group.oom_kills:
        return ""
    peak, most = group.peak, spec.resources.memory_max
    used = f", it used up to {size(peak)}" if peak else ""
    limit = f" of memory_max = {size(most)}" if most else "; no memory_max was set for it"
    return f"the kernel killed it because memory was short{used}{limit}"
