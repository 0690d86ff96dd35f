"""The three ways to share a listener: who gets the connections, and who waits."""

from __future__ import annotations

from pathlib import Path

from tests.bench.report import Section
from tests.bench.sharing import evenness, waiting


def section() -> Section:
    """Measure all of it; the figures are those of docs/accept-models.md."""
    shares, waits = evenness.measure(), waiting.measure()

    def draw(directory: Path) -> None:
        evenness.draw(shares, directory / "who-gets-the-connections.svg")
        waiting.draw(waits, directory / "who-waits.svg")

    parts = [
        evenness.described(shares),
        "### Who waits",
        waiting.described(waits),
    ]
    return Section(
        title="Who gets the connections",
        text="\n\n".join(parts),
        goals=evenness.goals(shares),
        draw=draw,
    )
