"""Kills a manager at one crash point after the other, under load, and judges what that cost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError

from sockmgr.config.spec import Accept
from tests.crash_points.deeds import applies, deed_of, undo
from tests.crash_points.places import Alone, Place, UnderSystemd
from tests.e2e.harness import wait_for
from tests.e2e.programs.release import answered

REACHED = 30.0  # seconds in which a manager has to come to a point
AT_REST = 60.0  # and the next one to an end of what it found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a death at `point` came to: `flaw` is "" if nothing was lost, `log` what was said."""

    point: str
    requests: int = 0
    flaw: str = ""
    log: str = ""


def play(points: Iterable[str], accept: Accept, *, systemd: bool) -> Iterator[Outcome]:
    """Kill a manager at each of these points that there are; yield what that came to.

    A place in which something went wrong is left for another.
    """
    left = list(points)
    while left:
        with (
            tempfile.TemporaryDirectory() as top,
            UnderSystemd(accept) if systemd else Alone(accept, Path(top)) as place,
        ):
            while left:
                point = left.pop(0)
                if not applies(point, place):
                    continue
                outcome = killed(place, point)
                yield outcome
                if outcome.flaw:
                    break


def killed(place: Place, point: str) -> Outcome:
    """Kill the manager there; return when the next ones have ended what it began."""
    try:
        with place.load() as load:
            answered(load, count=5)
            _die(place, point)
            place.succeed()
            wait_for(lambda: place.is_at_rest(anew=True), "the next manager", timeout=AT_REST)
            place.forget()
            undo(place)
            assert place.do("reload") == 0, "the next manager could not reload"
            wait_for(place.is_at_rest, "the end of what was begun", timeout=AT_REST)
            answered(load, count=10)
            result = load.stop()
    except (AssertionError, SubprocessError, KeyError, OSError) as error:
        return Outcome(point=point, flaw=f"{type(error).__name__}: {error}", log=place.log)
    flaw = f"lost {result.failures()}" if result.failed else ""
    return Outcome(point=point, requests=len(result.rows), flaw=flaw, log=place.log if flaw else "")


def _die(place: Place, point: str) -> None:
    name = point.partition(":")[0]
    for mark in place.marks.iterdir():
        mark.unlink()
    place.arm(point)
    dead = wait_for(
        lambda: "dead" if place.is_dead(name) else "serves" if place.is_at_rest(anew=True) else "",
        "the manager that is to die", timeout=REACHED,
    )  # fmt: skip
    if dead == "serves":
        deed_of(point)(place)
    wait_for(lambda: place.is_dead(name), f"the point {point}", timeout=REACHED)
