"""What all tests share: a clean start, and the order. Those that want the machine come last."""

from __future__ import annotations

import pytest

from sockmgr.kernel.spawn import close_on_exec_all


def pytest_configure() -> None:
    """Keep descriptors that whoever runs the tests left open from the programs under test."""
    close_on_exec_all()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests/e2e behind everything else, in whatever order the rest is."""
    items.sort(key=lambda item: "e2e" in item.path.parts)
