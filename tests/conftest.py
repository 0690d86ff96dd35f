"""What all tests share: a clean start, and the order. Those that want the machine come last."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator

import pytest

from sockmgr.kernel.open_files import close_on_exec_all

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def pytest_configure() -> None:
    """Keep descriptors that whoever runs the tests left open from the programs under test."""
    close_on_exec_all()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests/e2e behind everything else, in whatever order the rest is."""
    items.sort(key=lambda item: "e2e" in item.path.parts)


@pytest.fixture(autouse=True)
def _ourselves_as_before() -> Iterator[None]:
    """Undo what a manager does to its process, for tests that call it in ours."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
