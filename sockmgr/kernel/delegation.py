"""The part of the tree of cgroups v2 that is ours, and the cgroup of each worker in it: cgroups(7).

It is ours if systemd has delegated it (Delegate=yes), which an extended attribute tells, or if we
are the first process of a container. A cgroup whose children have controllers may have no process
of its own, so whoever is in it has to move into a leaf.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from sockmgr.kernel import own_cgroups
from sockmgr.kernel.own_cgroups import read

# Where we go if systemd has started us in the upper cgroup, as it does without DelegateSubgroup=.
LEAF = "moved"
PRESSURES = ("cpu", "io", "memory")
_MARKS = ("user.delegate", "trusted.delegate")  # systemd sets both; only root can read the second
_PASSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """The cgroup `path` is ours, and the manager is in its `leaf`, or is to be."""

    path: Path
    leaf: Path

    @property
    def may_control(self) -> bool:
        """Whether its children may have controllers.

        systemd starts the next manager where it started the first. It cannot do that in the upper
        cgroup while the children of that have controllers.
        """
        return self.leaf.name != LEAF or not self.path.name.endswith(".service")

    @property
    def controllers(self) -> Collection[str]:
        """The controllers that its children could have."""
        return read(self.path / "cgroup.controllers").split() if self.may_control else ()

    def settle(self) -> None:
        """Move who is in the upper cgroup itself to the leaf, and remove what workers left.

        Raises OSError.
        """
        self.leaf.mkdir(exist_ok=True)
        for _ in range(_PASSES):  # one that has just been looked at may have forked
            for pid in _pids(self.path):
                Group(self.leaf).add(pid)
        for path in self.path.glob("*@*"):
            Group(path).remove()

    def enable(self, wanted: Collection[str]) -> dict[str, str]:
        """Give these controllers to the children; return why not, for each where that fails."""
        on, failed = read(self.path / "cgroup.subtree_control").split(), {}
        for name in sorted(set(wanted) - set(on)):
            if name not in self.controllers:
                failed[name] = self.why_without(name)
                continue
            try:
                Group(self.path).write("cgroup.subtree_control", f"+{name}")
            except OSError as error:
                failed[name] = f"cannot have the {name} controller: {error.strerror}"
        return failed

    def why_without(self, controller: str) -> str:
        if self.may_control:
            return f"there is no {controller} controller for {self.path}"
        return (
            "systemd could not start the next manager beside workers with limits: that needs "
            "DelegateSubgroup=, of systemd 254"
        )

    def make(self, name: str) -> Group:
        """Make a cgroup; raise OSError."""
        group = Group(self.path / name)
        # A worker of that name may have been there before, whose state was lost.
        while not group.remove():
            group = Group(group.path.with_name(f"{group.path.name}+"))
        group.path.mkdir()
        return group

    def group_of(self, pid: int) -> Group | None:
        """Return the cgroup of a worker's process, None if it has none of its own."""
        found = own_cgroups.of(pid)
        is_own = found is not None and found.parent == self.path and "@" in found.name
        return Group(found) if found and is_own else None


@dataclass(frozen=True, slots=True)
class Group:
    path: Path

    def write(self, file: str, value: str) -> None:
        """Write one of its files; raise OSError."""
        with (self.path / file).open("w") as opened:
            opened.write(value)

    def add(self, pid: int) -> None:
        """Move a process into it, if it still lives; raise OSError."""
        with contextlib.suppress(ProcessLookupError):
            self.write("cgroup.procs", str(pid))

    def members(self) -> list[int]:
        """Return the pids of the processes in it, and in those below it."""
        return [pid for directory in self._all() for pid in _pids(directory)]

    def kill(self) -> None:
        """Kill all of them at once, also those that are just being forked (Linux 5.14)."""
        with contextlib.suppress(OSError):  # gone, or an older kernel
            self.write("cgroup.kill", "1")

    def remove(self) -> bool:
        """Remove it; return whether it is gone. It stays if a process is in it."""
        try:
            for directory in reversed(list(self._all())):
                directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            return False
        return True

    @property
    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed because memory was short."""
        lines = map(str.split, read(self.path / "memory.events").splitlines())
        return next((int(number) for name, number in lines if name == "oom_kill"), 0)

    @property
    def memory(self) -> int | None:
        """How many bytes it uses, page cache included; None without the memory controller."""
        return _number(self.path / "memory.current")

    @property
    def peak(self) -> int | None:
        """The most that it has ever used (Linux 5.19)."""
        return _number(self.path / "memory.peak")

    def pressure(self, resource: str) -> tuple[float, float] | None:
        """Return how much of the last 10 s its processes waited for it, in per cent, and how long.

        That is in seconds since the start, and of at least one process: PSI, "some". None if the
        kernel does not tell.
        """
        words = read(self.path / f"{resource}.pressure").partition("\n")[0].split()
        found = dict(word.split("=") for word in words[1:])
        return (float(found["avg10"]), int(found["total"]) / 1e6) if words else None

    def _all(self) -> Iterator[Path]:
        yield from (Path(each) for each, _, _ in os.walk(self.path))


def find(pid: int | str = "self") -> Delegation | str:
    """Return what was delegated to a manager, or why nothing was, as words for a person."""
    own = own_cgroups.of(pid)
    if own is None or not own.exists():
        return "no cgroup v2 is mounted here"
    if _is_ours(own):
        found = Delegation(path=own, leaf=own / LEAF)
    elif own != own_cgroups.root() and _is_ours(own.parent):
        found = Delegation(path=own.parent, leaf=own)
    else:
        return "none was delegated to the manager (Delegate=yes)"
    if not os.access(found.path / "cgroup.procs", os.W_OK, effective_ids=True):
        return f"{found.path} cannot be written to (ProtectControlGroups=, or another's)"
    return found


def _is_ours(path: Path) -> bool:
    for mark in _MARKS:
        with contextlib.suppress(OSError):  # it is not there
            return os.getxattr(path, mark) == b"1"
    # The cgroup of the whole machine has no type; in a container that file is there.
    return os.getpid() == 1 and path == own_cgroups.root() and (path / "cgroup.type").exists()


def _pids(directory: Path) -> list[int]:
    # 0 is somebody outside of our namespace.
    return [int(pid) for pid in read(directory / "cgroup.procs").split() if pid != "0"]


def _number(path: Path) -> int | None:
    text = read(path).strip()
    return int(text) if text.isdecimal() else None
