"""What all tests share: the quick ones come first, those that want the machine to themselves last."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests/e2e behind everything else, in whatever order the rest is."""
    items.sort(key=lambda item: "e2e" in item.path.parts)
