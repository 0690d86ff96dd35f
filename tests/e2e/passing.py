"""Workers that are passed their connections, as the status has them."""

from __future__ import annotations

from tests.e2e.harness import Manager


def connections(manager: Manager) -> dict[int, int]:
    """What each ready worker has open, by pid."""
    ready = [worker for worker in manager.workers() if worker["state"] == "ready"]
    return {worker["pid"]: worker["connections"] for worker in ready}
