"""`python -m tests.bench`: measure everything side by side and print it as Markdown."""

from __future__ import annotations

import argparse
import compileall
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import sockmgr
from tests.bench import (
    costs,
    development,
    dispatching,
    drain,
    models,
    preload,
    rollout,
    sharing,
)
from tests.bench.report import Section, document


def _arguments(sections: Mapping[str, Callable[[], Section]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only", choices=sections, action="append", help="measure only this; may be repeated"
    )
    parser.add_argument(
        "--tool", default="", metavar="TEXT", help="only contenders with TEXT in their name"
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="write the document here, too, and its figures beside it",
    )
    return parser.parse_args()


def main() -> int:
    """Measure, print, and write if asked to. Figures never fail a run: they are for reading."""
    sections: dict[str, Callable[[], Section]] = {
        "reloads": lambda: rollout.section(arguments.tool),
        "drain": drain.section,
        "preload": preload.section,
        "costs": costs.section,
        "development": development.section,
        "dispatch": dispatching.section,
        "models": models.section,
        "sharing": sharing.section,
    }
    arguments = _arguments(sections)
    compileall.compile_dir(Path(sockmgr.__file__).parent, quiet=1)  # as pip does
    load_before = os.getloadavg()[0]
    found = [sections[name]() for name in arguments.only or sections]
    command = " ".join(["python -m tests.bench", *sys.argv[1:]])
    text = document(found, command=command, load_before=load_before)
    print(text)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(text)
        for section in found:
            if section.draw:
                section.draw(arguments.write.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
