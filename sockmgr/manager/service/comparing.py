"""How a canary answers beside the generation that serves, by what the workers of both count.

Reads their figures when it is asked to. Decides nothing: see fleet/comparison.
"""

from __future__ import annotations

from sockmgr.api.figures import Comparison, Finding
from sockmgr.fleet.comparison import Course
from sockmgr.fleet.generation import Generation
from sockmgr.manager.service.figures import ServiceFigures


class Comparing:
    """The comparison of one service; `found` is the last one of the rollout under way, or None."""

    def __init__(self, figures: ServiceFigures) -> None:
        self._figures = figures
        self.course: Course | None = None  # of the present step, for the next manager
        self.found: Comparison | None = None

    def begin(self, trial: Generation, current: Generation | None) -> None:
        """Compare from now on; or go on, if a predecessor has begun with this step."""
        if not (current and current.spec.has_figures and trial.spec.has_figures):
            self.course = None
            return
        which = (trial.number, current.number, trial.step)
        was = self.course
        if was is None or (was.generation, was.beside, was.step) != which:
            self.course = Course(
                generation=trial.number,
                beside=current.number,
                step=trial.step,
                new=self._figures.of(trial.number),
                old=self._figures.of(current.number),
            )

    def look(self, now: float) -> Comparison | None:
        """Compare them; None where there are no figures."""
        course = self.course
        if course is None:
            return None
        new, old = self._figures.of(course.generation), self._figures.of(course.beside)
        self.found = course.look(new, old, now)
        return self.found

    def end(self, now: float) -> None:
        """Compare for the last time, and no more."""
        # The numbers by which it is taken back stay: those are what the verdict speaks of.
        if self.found is None or self.found.finding is not Finding.WORSE:
            self.look(now)
        self.course = None

    def take(self, now: float) -> Comparison | None:
        """Return what was found last, for the verdict, and forget it."""
        self.end(now)
        found, self.found = self.found, None
        return found
