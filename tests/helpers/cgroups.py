"""Cgroups v2 for tests: a real one, which is delegated to the test, and a pretended one.

A pretended one is a directory, in which files stay that the kernel would act on.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.kernel import own_cgroups
from sockmgr.kernel.delegation import Group
from tests.e2e.harness import wait_for


def pretended(directory: Path, *, leaf: str = "manager", controllers: str = "cpu memory") -> Path:
    """Make a cgroup of which the manager is in `leaf`."""
    (directory / leaf).mkdir(parents=True)
    (directory / "cgroup.controllers").write_text(f"{controllers}\n")
    (directory / "cgroup.subtree_control").write_text("\n")
    (directory / "cgroup.procs").write_text("")
    return directory


def real() -> Iterator[Path]:
    """Yield its directory, marked as systemd marks one; skip the test where none can be made."""
    path = own_cgroups.root() / f"sockmgr-test-{uuid.uuid4().hex}"
    try:
        path.mkdir()
        os.setxattr(path, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"no cgroup v2 can be made here: {error}")
    yield path
    Group(path).kill()  # whatever a test that failed has left
    wait_for(lambda: removed(path), "all processes in the cgroups of a test to end")


def removed(path: Path) -> bool:
    """Remove a cgroup and those below; return whether it is gone."""
    try:
        for directory, _, _ in os.walk(path, topdown=False):
            Path(directory).rmdir()
    except OSError:
        return False
    return True
