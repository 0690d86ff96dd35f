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
    causes,
    costs,
    development,
    dispatching,
    drain,
    kept,
    models,
    path,
    preload,
    rollout,
    saturated,
    scale,
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
        "causes": causes.section,
        "saturated": saturated.section,
        "path": path.section,
        "drain": drain.section,
        "kept": kept.section,
        "preload": preload.section,
        "costs": costs.section,
        "development": development.section,
        "dispatch": dispatching.section,
        "models": models.section,
        "sharing": sharing.section,
        "scale": lambda: scale.section(arguments.tool),
    }
    arguments = _arguments(sections)
    compileall.compile_dir(Path(sockmgr.__file__).parent, quiet=1)  # as pip does
    load_before = os.getloadavg()[0]
    command = " ".join(["python -m tests.bench", *sys.argv[1:]])
    found, text = [], ""
    for name in arguments.only or sections:
        found.append(sections[name]())
        text = document(found, command=command, load_before=load_before)
        if arguments.write:  # at once, since a section that fails ends the run
            _write(arguments.write, text, found[-1])
    print(text)
    return 0


def _write(path: Path, text: str, newest: Section) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if newest.draw:
        newest.draw(path.parent)


if __name__ == "__main__":
    sys.exit(main())
