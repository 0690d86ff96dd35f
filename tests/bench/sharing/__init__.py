"""The three ways to share a listener: who gets the connections, who waits, what one costs."""

from __future__ import annotations

from pathlib import Path

from tests.bench.report import Section
from tests.bench.sharing import cost, evenness, waiting


def section() -> Section:
    """Measure all of it; the figures are those of docs/accept-models.md."""
    shares, waits, costs = evenness.measure(), waiting.measure(), cost.measure()

    def draw(directory: Path) -> None:
        evenness.draw(shares, directory / "who-gets-the-connections.svg")
        waiting.draw(waits, directory / "who-waits.svg")
        cost.draw(costs, directory / "what-a-connection-costs.svg")

    parts = [
        evenness.described(shares),
        "### Who waits",
        waiting.described(waits),
        "### What a connection costs",
        cost.described(costs),
    ]
    return Section(
        title="Who gets the connections",
        text="\n\n".join(parts),
        goals=evenness.goals(shares),
        draw=draw,
    )
