"""A schedule is a world and the steps it takes, all of them drawn from one number, its seed.

Schedules whose seeds are neighbours begin alike: a trunk is played once, and copied at some of its
steps, and from each copy on another schedule is drawn. So most of the time goes into what differs.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation import configs, copying, steps
from tests.simulation.kernel import Broken
from tests.simulation.steps import Step
from tests.simulation.world import World

BRANCHES = 32  # schedules with one trunk
TRUNK = 40  # steps of a trunk, at most
BRANCH = 3  # steps that a schedule has for itself
SETTLED = 8  # of so many schedules one is played until all is at rest


@dataclass
class Failure:
    """A promise that was broken: by which steps, from which seed, and what was found."""

    seed: int
    family: int
    steps: list[Step]
    settles: bool
    what: str

    @property
    def kind(self) -> str:
        return kind_of(self.what)


def kind_of(what: str) -> str:
    """Return what stays the same of a failure when it happens to another worker."""
    return "".join(each for each in what if not each.isdigit())[:60]


def begun(family: int) -> World:
    """Return a world whose manager starts."""
    world = World(family)
    world.begin_manager()
    world.run()
    return world


def play(family: int, taken: list[Step], *, settles: bool, world: World | None = None) -> str:
    """Take these steps; return what was broken, or nothing."""
    try:
        world = world or begun(family)
        for step in taken:
            steps.take(world, step)
        if settles:
            steps.settle(world)
    except Exception as broken:
        return told(broken)
    return ""


def told(error: Exception) -> str:
    if isinstance(error, Broken):
        return str(error)
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" in {trace.tb_frame.f_code.co_qualname}" if trace else ""
    return f"{type(error).__name__}{where}: {error}"


@dataclass
class Campaign:
    """Many schedules, one trunk after another, and what was played of them."""

    schedules: int = 0
    steps: int = 0  # of all schedules, though those that they have in common were played once
    facts: int = 0
    deaths: int = 0
    settled: int = 0
    stopped: int = 0
    last: Failure | None = None  # the last schedule, which broke nothing

    @property
    def length(self) -> int:
        """How many steps a schedule has on average, before it settles."""
        return self.steps // max(1, self.schedules)

    def run(self, seeds: range) -> Iterator[Failure | None]:
        """Play each of these seeds; yield what breaks a promise, and None after each trunk."""
        for number in range(seeds.start // BRANCHES, -(-seeds.stop // BRANCHES)):
            yield from self._trunk(number, seeds)
            gc.collect()
            yield None

    def _trunk(self, number: int, seeds: range) -> Iterator[Failure]:
        dice = random.Random(f"trunk {number}")
        family = dice.randrange(configs.FAMILIES)
        leaves = sorted(dice.randrange(2, TRUNK + 1) for _ in range(BRANCHES))
        mine = [n for n in range(number * BRANCHES, (number + 1) * BRANCHES) if n in seeds]
        taken: list[Step] = []
        at, seed = 0, mine[0]  # how many steps were possible, and for whom they were taken
        try:
            world = begun(family)
            for branch, length in enumerate(leaves):
                seed, before = number * BRANCHES + branch, world.facts
                if seed > mine[-1]:
                    return
                _draw(world, dice, taken, length - at)
                self.facts += world.facts - before
                if seed in seeds:
                    yield from self._branch(copying.copied(world), seed, family, list(taken))
                    gc.collect(0)  # a world is full of cycles
                at = length
        except Exception as broken:
            # Those before it leave the trunk before it breaks.
            yield Failure(max(seed, mine[0]), family, taken, False, told(broken))

    def _branch(self, world: World, seed: int, family: int, taken: list[Step]) -> Iterator[Failure]:
        dice = random.Random(seed)
        settles, before = seed % SETTLED == 0, world.facts
        self.schedules += 1
        try:
            _draw(world, dice, taken, BRANCH)
            if settles:
                self.settled += 1
                steps.settle(world)
            self.last = Failure(seed, family, taken, settles, "")
        except Exception as broken:
            yield Failure(seed, family, taken, settles, told(broken))
        self.steps += len(taken)
        self.facts += world.facts - before
        self.deaths += world.deaths
        self.stopped += world.is_over


def _draw(world: World, dice: random.Random, taken: list[Step], number: int) -> None:
    """Take so many steps that are drawn, as far as there are any."""
    for _ in range(number * 20):
        if number <= 0 or world.is_over:
            return
        step = steps.drawn(dice)
        taken.append(step)
        if steps.take(world, step):
            number -= 1
        else:
            taken.pop()
