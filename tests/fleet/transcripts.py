"""Golden transcripts: rollouts/*.txt, replayed and compared line by line.

`python -m tests.fleet.transcripts --write` replays the facts of each file and writes what the fleet
answers now; read the difference before you commit it. A line `> due` is a tick at the deadline.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sockmgr.fleet.messages import Action
from tests.fleet.story import read_fact
from tests.fleet.world import World

FOLDER = Path(__file__).parent / "rollouts"


def files() -> list[Path]:
    """Return all transcripts, in order."""
    return sorted(FOLDER.glob("*.txt"))


def replay(text: str) -> str:
    """Return the transcript with the same remarks and facts, and what the fleet answers to them."""
    world, lines = World(), []
    for line in text.splitlines():
        if line.startswith(("#", ">")) or not line:
            lines.append(line)
        if line.startswith(">"):
            _happen(world, line.split()[1:])
            written = len(world.story) - 1 - _last_fact(world)
            lines += world.story[len(world.story) - written :]
    return "\n".join(lines) + "\n"


def _happen(world: World, words: list[str]) -> list[Action]:
    if words == ["due"]:
        return world.due()
    if words[0].startswith("+"):
        world.now += float(words.pop(0))
    return world.tell(read_fact(words))


def _last_fact(world: World) -> int:
    return max(n for n, line in enumerate(world.story) if line.startswith(">"))


def main(arguments: list[str]) -> int:
    """Write all transcripts anew, or say which differ."""
    differing = [path for path in files() if replay(path.read_text()) != path.read_text()]
    for path in differing:
        if arguments == ["--write"]:
            path.write_text(replay(path.read_text()))
        print(f"{path.name} {'written' if arguments == ['--write'] else 'differs'}")
    return 1 if differing and arguments != ["--write"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
