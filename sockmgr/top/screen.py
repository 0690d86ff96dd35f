"""Draws a view as lines for a terminal of any size. Pure: the same view and size, the same lines.

A narrow terminal loses columns, a low one rows; no line is ever longer than the terminal is wide.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.text import Text

from sockmgr.api.records import line_about, printable
from sockmgr.api.types import Event, RolloutStatus, ServiceStatus, WorkerStatus
from sockmgr.metrics.usage import Usage
from sockmgr.terminal.format import age, size
from sockmgr.top.view import Place, View, in_order

T = TypeVar("T")

STATES = {
    "serving": "green", "ready": "green", "degraded": "yellow", "draining": "yellow",
    "starting": "cyan", "down": "bold red", "killed": "red",
}  # fmt: skip
LEVELS = {"warning": "yellow", "error": "red", "critical": "red"}
HEAD, CHOSEN, TROUBLE = "bold", "reverse", "bold red"
KEYS = (
    "up/down choose  r reload  + - scale  w restart worker  q quit",
    "r reload  + - scale  w worker  q quit",
    "r + - w q",
)
_STATE = "STATE"
_QUEUE = 11  # the width of 65535/65535
_SAID = 3  # how many lines the last message may take


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    width: int
    cell: Callable[[WorkerStatus, Usage], str]


# The columns from left to right. A narrow terminal drops columns in the order of _DISPENSABLE.
_COLUMNS = (
    _Column("PID", 7, lambda worker, _: str(worker.pid)),
    _Column(_STATE, 8, lambda worker, _: worker.state),
    _Column("AGE", 6, lambda worker, _: age(worker.age)),
    _Column("CPU%", 5, lambda _, usage: _or_dash(usage.cpu, "{:.1f}".format)),
    _Column("RSS", 5, lambda _, usage: _or_dash(usage.rss, size)),
    _Column("PSS", 5, lambda _, usage: _or_dash(usage.pss, size)),
    _Column("MEM", 5, lambda _, usage: _or_dash(usage.memory, size)),
    _Column("PSI%", 5, lambda _, usage: _or_dash(usage.pressure, "{:.1f}".format)),
    _Column("CONN", 5, lambda _, usage: _or_dash(usage.connections, str)),
)
_DISPENSABLE = ("PSI%", "MEM", "PSS", "PID", "RSS", "CONN", "CPU%", "AGE")
_NAME = 12  # columns are dropped until the names of workers have at least this width


def frame(view: View, width: int, height: int | None = None) -> list[Text]:
    """Return the lines of a screen, exactly `height` of them if that is given."""
    listeners = _listeners(view, width)
    tree, chosen = _tree(view, width)
    events = [_event(event) for event in view.events]
    if height is None:
        lines = [*listeners, *tree, _head("EVENTS"), *events]
        return [_crop(line, width) for line in (_first(view, width), *lines)]
    last = _last(view, width)
    room = max(0, height - 1 - len(last))
    kept = min(len(listeners), max(2, room // 4))
    least = min(len(events) + 1, room // 4)
    shown = _around(tree, max(2, room - kept - least), chosen)
    lines = [*listeners[:kept], *shown]
    if events and (left := room - len(lines)) > 1:
        lines += [_head("EVENTS"), *events[-(left - 1) :]]
    lines += [Text() for _ in range(room - len(lines))]
    if view.trouble:  # the view is out of date
        for line in lines:
            line.stylize("dim")
    whole = [_first(view, width), *lines[:room], *last]
    return [_crop(line, width) for line in whole[:height]]


def _first(view: View, width: int) -> Text:
    manager, usage = view.status.manager, view.manager
    cpu = _or_dash(usage.cpu, "{:.1f}%".format)
    rss = _or_dash(usage.rss, size)
    if view.trouble:
        return Text(printable(view.trouble), TROUBLE)
    start = f"{view.name}  pid {manager.pid}"
    texts = (f"{start}  sockmgr {manager.version}  cpu {cpu}  rss {rss}", start)
    text = next((each for each in texts if len(each) + 10 <= width), start)
    return Text(f"{text}{view.clock:>{max(0, width - len(text))}}", HEAD)


def _listeners(view: View, width: int) -> list[Text]:
    names = [printable(name) for name in view.status.listeners]
    name = min(max(map(len, [*names, "LISTENER"])), max(8, width // 4))
    cutover = 8 if width >= 60 else 0
    address = width - name - _QUEUE - cutover - 3
    head = " ".join([_left("LISTENER", name), _left("ADDRESS", address), _right("QUEUE", _QUEUE)])
    lines = [_head(f"{head} {_left('CUT-OVER', cutover)}")]
    for shown, one in zip(names, view.status.listeners.values(), strict=True):
        line = Text(f"{_left(shown, name)} {_left(one.address, address)} ")
        style = "yellow" if one.queue else ""
        style = "bold red" if 2 * one.queue > one.backlog else style
        line.append(_right(f"{one.queue}/{one.backlog}", _QUEUE), style)
        line.append(f" {_left(one.cutover, cutover)}")
        lines.append(line)
    return lines


def _tree(view: View, width: int) -> tuple[list[Text], int]:
    """Return a heading and the lines of services and workers, and the index of the chosen line."""
    columns, name = _fitting(width, view.usage.values())
    titles = [_padded(each, each.title) for each in columns]
    lines, chosen = [_head(" ".join([_left("SERVICE", name), *titles]))], 1

    def add(line: Text, place: Place) -> None:
        nonlocal chosen
        if place == view.chosen:
            line.pad_right(max(0, width - line.cell_len))
            line.stylize(CHOSEN)
            chosen = len(lines)
        lines.append(line)

    for service, one in view.status.services.items():
        add(_service(service, one, width), Place(service=service))
        if one.rollout:
            lines.append(_rollout(one.rollout, width))
        for worker in in_order(one):
            which = worker.name(service)
            usage = view.usage.get(which, Usage())
            add(_worker(which, worker, usage, columns, name), Place(service=service, worker=which))
    return lines, chosen


def _service(name: str, service: ServiceStatus, width: int) -> Text:
    wanted = f"/{service.wanted}" if service.wanted else ""
    line = Text(_short(printable(name), max(8, width - 32)), "bold")
    line.append(f"  {service.state}", STATES.get(service.state, ""))
    line.append(f"  generation {service.generation}  {service.ready}{wanted} ready", "not bold")
    return line


def _rollout(rollout: RolloutStatus, width: int) -> Text:
    done = round(10 * rollout.ready / max(1, rollout.wanted))
    bar = f"[{'#' * done}{'-' * (10 - done)}]"
    ready = f"{rollout.ready}/{rollout.wanted}"
    left = f"{rollout.deadline or 0:.0f} s"
    end = f"commits in {left}" if rollout.phase == "probation" else f"gives up in {left}"
    if canary := rollout.canary:
        line = f"{rollout.generation} {canary}"
        long = f"  generation {line}, {bar} {ready} ready"
        lines = (f"{long}{canary.numbers}", long, f"  {line}", f"  {line}"[:width])
        return Text(next(each for each in lines if len(each) <= width), "cyan")
    texts = (
        f"  generation {rollout.generation} {rollout.phase} {bar} {ready} ready, {end}",
        f"  {rollout.generation} {rollout.phase} {ready}, {end}",
        f"  {rollout.generation} {rollout.phase} {ready}, {left}",
    )
    return Text(next((each for each in texts if len(each) <= width), texts[-1]), "cyan")


def _fitting(width: int, usage: Collection[Usage]) -> tuple[list[_Column], int]:
    """Return the columns for which there is room, and the width left for the names before them."""
    left_out = {"MEM"} if all(each.memory is None for each in usage) else set()
    left_out |= {"PSI%"} if all(each.pressure is None for each in usage) else set()
    for title in ("", *_DISPENSABLE):
        left_out.add(title)
        columns = [each for each in _COLUMNS if each.title not in left_out]
        name = width - sum(each.width + 1 for each in columns)
        if name >= _NAME:
            break
    return columns, max(1, name)


def _worker(
    name: str, worker: WorkerStatus, usage: Usage, columns: Sequence[_Column], width: int
) -> Text:
    line = Text(f"  {_left(printable(name), width - 2)}")
    for column in columns:
        style = STATES.get(worker.state, "") if column.title == _STATE else ""
        line.append(f" {_padded(column, column.cell(worker, usage))}", style)
    return line


def _padded(column: _Column, text: str) -> str:
    return (_left if column.title == _STATE else _right)(text, column.width)


def _event(event: Event) -> Text:
    when = time.strftime("%H:%M:%S", time.localtime(event.time))
    return Text(f"{when} {line_about(event)}", LEVELS.get(event.level, ""))


def _last(view: View, width: int) -> list[Text]:
    if view.question:
        return [Text(view.question, CHOSEN), Text("y yes  any other key no", "dim")]
    said = textwrap.wrap(printable(view.said), width)[:_SAID] or [""]
    keys = next((each for each in KEYS if len(each) <= width), KEYS[-1])
    return [*(Text(line, HEAD) for line in said), Text(keys, "dim")]


# --- Fitting lines and texts into the room there is ----------------------------------------------


def _around(tree: Sequence[Text], number: int, chosen: int) -> list[Text]:
    """Return at most `number` lines: the heading, those around the chosen one, and a note."""
    if len(tree) <= number:
        return list(tree)
    rows, room = tree[1:], max(0, number - 2)
    above = max(0, min(chosen - 1 - room // 2, len(rows) - room))
    note = f"  {above} more above, {len(rows) - above - room} below"
    return [tree[0], *rows[above : above + room], Text(note, "dim")]


def _head(text: str) -> Text:
    return Text(text, HEAD)


def _crop(line: Text, width: int) -> Text:
    line.truncate(width, overflow="crop")
    line.no_wrap = True
    return line


def _left(text: str, width: int) -> str:
    return _short(text, width).ljust(width)


def _right(text: str, width: int) -> str:
    return _short(text, width).rjust(width)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}~"[: max(0, width)]


def _or_dash(value: T | None, shown: Callable[[T], str]) -> str:
    return "-" if value is None else shown(value)
