"""Draws one trial as SVG: latency, failures, connections and versions over one axis of time. Pure.

Colours are classes, which the page defines: `s0` to `s7` for workers and versions, `f0` to `f8` for
the classes of failures, `excused` for those that had to be.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sockmgr.torture.judgement import Loss
from sockmgr.torture.load.result import Outcome, percentile
from sockmgr.torture.run import Trial

WIDTH, LEFT, RIGHT = 560, 46, 552
BUCKETS = 72
SERIES = 8
LATENCY, FAILURES, CONNECTIONS, VERSIONS = (24, 104), (122, 172), (190, 250), (268, 300)
HEIGHT = 322
FASTEST, SLOWEST = 0.001, 10.0  # seconds: the ends of the logarithmic scale
MARKS = {0.001: "1 ms", 0.01: "10 ms", 0.1: "0.1 s", 1.0: "1 s", 10.0: "10 s"}

Panel = tuple[int, int]
Stack = Sequence[Mapping[str, float]]  # a bucket each: class of colour -> height


def svg(trial: Trial) -> str:
    axis = _Axis(trial.began_at, trial.ended_at)
    parts = [
        *_latency(trial, axis),
        *_frame(FAILURES, "failures, by class"),
        *_bars(_failures(trial, axis), FAILURES, label=True),
        *_frame(CONNECTIONS, "connections, by worker"),
        *_bars(_connections(trial, axis), CONNECTIONS, label=True),
        *_frame(VERSIONS, "versions, by their share of the answers"),
        *_bars(_versions(trial, axis), VERSIONS),
        *_faults(trial, axis),
        *_seconds(axis),
    ]
    title = html.escape(f"{trial.name}: {trial.what}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )


class _Axis:
    """The time of a trial, in pixels and in buckets."""

    def __init__(self, began: float, ended: float) -> None:
        self._began, self.span = began, max(0.001, ended - began)

    def x(self, at: float) -> float:
        share = min(1.0, max(0.0, (at - self._began) / self.span))
        return LEFT + share * (RIGHT - LEFT)

    def bucket(self, at: float) -> int:
        share = (at - self._began) / self.span
        return min(BUCKETS - 1, max(0, int(share * BUCKETS)))


def _left(bucket: float) -> float:
    return LEFT + bucket * (RIGHT - LEFT) / BUCKETS


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{html.escape(words)}</text>'


def _frame(panel: Panel, name: str) -> Iterator[str]:
    top, bottom = panel
    yield f'<path class="axis" d="M{LEFT} {bottom}H{RIGHT}"/>'
    yield _text(LEFT, top - 4, name)


def _seconds(axis: _Axis) -> Iterator[str]:
    step = max(1, math.ceil(axis.span / 8))
    for second in range(0, int(axis.span) + 1, step):
        x = LEFT + second / axis.span * (RIGHT - LEFT)
        yield _text(x, HEIGHT - 8, f"{second} s", "tick")


def _latency(trial: Trial, axis: _Axis) -> Iterator[str]:
    """Yield the median and the longest latency of what was short, from when it was due."""
    yield from _frame(LATENCY, "latency: median and longest, by when the request was due")
    for seconds, name in MARKS.items():
        y = _height(seconds)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
        yield _text(LEFT - 4, y + 3, name, "mark")
    times: list[list[float]] = [[] for _ in range(BUCKETS)]
    for row in trial.rows:
        if row.outcome is Outcome.OK and row.mode in {"short", "ka", "kat"}:
            times[axis.bucket(row.scheduled)].append(row.latency)
    for style, share in (("longest", 1.0), ("median", 0.5)):
        values = [percentile(bucket, share) for bucket in times]
        yield f'<path class="{style}" d="{_line(values)}"/>'


def _line(values: Iterable[float]) -> str:
    """Return a path through the middles of the buckets, with gaps where nothing was answered."""
    parts, pen = [], "M"
    for bucket, value in enumerate(values):
        if math.isnan(value):
            pen = "M"
        else:
            parts.append(f"{pen}{_left(bucket + 0.5):.1f} {_height(value):.1f}h0")
            pen = "L"
    return "".join(parts)


def _height(seconds: float) -> float:
    top, bottom = LATENCY
    share = math.log10(max(seconds, FASTEST) / FASTEST) / math.log10(SLOWEST / FASTEST)
    return bottom - min(1.0, share) * (bottom - top)


# --- What is counted -----------------------------------------------------------------------------


def _failures(trial: Trial, axis: _Axis) -> Stack:
    found = [Counter[str]() for _ in range(BUCKETS)]
    for one in trial.judgement.failures:
        style = "excused" if one.excuse else f"f{list(Loss).index(one.loss)}"
        found[axis.bucket(one.at)][style] += 1
    return found


def _connections(trial: Trial, axis: _Axis) -> Stack:
    """Return how many connections each worker held; a bucket without a sample is as before."""
    numbers: dict[int, str] = {}
    found: list[Mapping[str, float]] = [{} for _ in range(BUCKETS)]
    for sample in trial.seen.samples:
        held = Counter[str]()
        for pid, number in sample.connections.items():
            held[numbers.setdefault(pid, f"s{len(numbers) % SERIES}")] += number
        found[axis.bucket(sample.at)] = held
    samples = {axis.bucket(sample.at) for sample in trial.seen.samples}
    for bucket in range(1, BUCKETS):
        if bucket not in samples:
            found[bucket] = found[bucket - 1]
    return found


def _versions(trial: Trial, axis: _Axis) -> Stack:
    found = [Counter[str]() for _ in range(BUCKETS)]
    order = sorted({row.version for row in trial.rows if row.version}, key=lambda v: (len(v), v))
    for row in trial.rows:
        if row.version:
            style = f"s{order.index(row.version) % SERIES}"
            found[axis.bucket(row.ended)][style] += 1
    return [{style: each[style] / each.total() for style in sorted(each)} for each in found]


def _bars(stack: Stack, panel: Panel, *, label: bool = False) -> Iterator[str]:
    """Yield a path a colour: in each bucket a bar, upon the bars of the colours before it."""
    top, bottom = panel
    most = max((sum(bucket.values()) for bucket in stack), default=0) or 1
    if label and any(stack):
        yield _text(LEFT - 4, top + 6, f"{most:g}", "mark")
    below = [0.0] * len(stack)
    for style in sorted({style for bucket in stack for style in bucket}):
        heights = [bucket.get(style, 0) / most * (bottom - top) for bucket in stack]
        tops = [bottom - under - height for under, height in zip(below, heights, strict=True)]
        yield f'<path class="{style}" d="{_boxes(tops, heights)}"/>'
        below = [under + height for under, height in zip(below, heights, strict=True)]


def _boxes(tops: Sequence[float], heights: Sequence[float]) -> str:
    """Return a path of boxes, one for all neighbours that look the same."""
    parts, began = [], 0
    boxes = [
        (round(y), round(y + height) - round(y)) for y, height in zip(tops, heights, strict=True)
    ]
    for bucket, box in enumerate(boxes):
        if bucket + 1 == len(boxes) or boxes[bucket + 1] != box:
            left, right = round(_left(began)), round(_left(bucket + 1))
            if box[1]:
                parts.append(f"M{left} {box[0]}H{right}v{box[1]}H{left}z")
            began = bucket + 1
    return "".join(parts)


def _faults(trial: Trial, axis: _Axis) -> Iterator[str]:
    for number, moment in enumerate(trial.seen.moments):
        x = axis.x(moment.at)
        yield f'<path class="fault" d="M{x:.1f} {LATENCY[0] - 4}V{VERSIONS[1]}"/>'
        # Five reloads in a row would be written one upon the other.
        if number == 0 or x - axis.x(trial.seen.moments[number - 1].at) > 70:
            yield _text(x + 3, LATENCY[0] + 6, moment.what, "what")
