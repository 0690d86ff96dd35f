"""The pictures of docs/accept-models.md, drawn from what was measured. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sockmgr.torture.load.result import percentile

# From the darkest, and whether what stands on it is white.
SHADES = (("#1f4e79", True), ("#3f7fb5", True), ("#8fb8de", False), ("#d0e2f2", False))
POINTS = 40  # of a tail, for each power of ten


@contextmanager
def _axes(path: Path, inches: tuple[float, float]) -> Iterator[Any]:
    """Give axes to draw on; write the picture when that is done."""
    import matplotlib  # noqa: PLC0415 - only where something is drawn

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": path.name, "font.size": 9}
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=inches, layout="constrained")
    yield axes
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def bars(
    path: Path,
    names: Sequence[str],
    parts: Sequence[Sequence[float]],
    *,
    across: str,
    legend: Sequence[str] = (),
) -> None:
    """Draw a bar for each name, made of its parts; what is too short for its number has none."""
    longest = max(map(sum, parts))
    with _axes(path, (7.5, 0.32 * len(names) + (1.2 if legend else 0.9))) as axes:
        left = [0.0] * len(names)
        for index, each in enumerate(zip(*parts, strict=True)):
            shade, dark = SHADES[index]
            drawn = axes.barh(names, each, left=left, color=shade, edgecolor="white")
            labels = [f"{part:.0f}" if part > longest / 40 else "" for part in each]
            axes.bar_label(drawn, labels, label_type="center",
                           color="white" if dark else "black", fontsize=8)  # fmt: skip
            left = [sum(pair) for pair in zip(left, each, strict=True)]
        axes.invert_yaxis()
        axes.set_xlabel(across)
        if legend:
            axes.legend(legend, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(legend),
                        frameon=False)  # fmt: skip


def tails(
    path: Path, lines: Sequence[tuple[str, Sequence[float], str, str]], *, across: str
) -> None:
    """Draw, for each name, times, colour and style, which share of the times is as long as what."""
    with _axes(path, (7.5, 3.8)) as axes:
        for name, times, colour, style in lines:
            points = range(math.floor(POINTS * math.log10(len(times))) + 1)
            shares = [10 ** (-point / POINTS) for point in points]
            longer = [percentile(times, 1 - share) for share in shares]
            axes.plot(longer, shares, label=name, color=colour, linestyle=style)
        axes.set(
            xscale="log", yscale="log", xlabel=across, ylabel="share that takes so long, or longer"
        )
        _tick(axes.set_xticks, (0.5, 1, 2, 5, 10, 20, 50, 100, 200))
        _tick(axes.set_yticks, (1, 0.5, 0.1, 0.01, 0.001))
        axes.grid(visible=True, color="#e5e5e5", linewidth=0.6)
        axes.legend(loc="lower left", fontsize=8)


def _tick(set_ticks: Callable[..., object], values: Sequence[float]) -> None:
    """Have these values on a logarithmic axis, as plain numbers, and no others."""
    set_ticks(values, [f"{value:g}" for value in values])
    set_ticks([], minor=True)
