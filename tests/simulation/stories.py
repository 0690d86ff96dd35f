"""Stories: the steps of a failure, made short, as a file that is kept and as words to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation import schedule
from tests.simulation.schedule import Failure
from tests.simulation.steps import Step
from tests.simulation.world import World

HERE = Path(__file__).parent / "stories"


@dataclass
class Story:
    """What is played: the configs of `family`, these steps, and then perhaps until all rests.

    `tells` must be told on the way, or the story is no longer about what it was kept for.
    """

    family: int
    steps: list[Step] = field(default_factory=list)
    settles: bool = False
    tells: list[str] = field(default_factory=list)


def kept() -> list[Path]:
    """Return the stories of what was found and mended."""
    return sorted(HERE.glob("*.story"))


def read(path: Path) -> Story:
    """Read a story."""
    story = Story(family=-1)
    for line in path.read_text(encoding="utf-8").splitlines():
        match line.split(maxsplit=1):
            case ["#", _] | ["#"] | []:
                pass
            case ["family", rest]:
                number, *more = rest.split()
                story.family, story.settles = int(number), more == ["settles"]
            case ["tells", words]:
                story.tells.append(words)
            case _:
                story.steps.append(Step.read(line))
    return story


def written(failure: Failure) -> str:
    """Return the text of a story to keep."""
    settles = " settles" if failure.settles else ""
    return "\n".join([f"family {failure.family}{settles}", *map(str, failure.steps)])


def told(story: Story | Failure) -> tuple[list[str], str]:
    """Play it, and return it in words, and what was broken."""
    world = World(story.family)
    world.story = []
    world.begin_manager()
    world.run()
    what = schedule.play(story.family, story.steps, settles=story.settles, world=world)
    return world.story, what
