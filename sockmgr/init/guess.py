"""Guess what a project most likely is and the command that serves it, with the reasons."""

from __future__ import annotations

from dataclasses import replace

from sockmgr.init import application, node, procfile
from sockmgr.init.facts import Guess, Project

LOOKED_FOR = (
    "a `web` line in a Procfile",
    "an ASGI or WSGI application in Python sources",
    "a Node server, or `start` in a package.json",
)


def guess(project: Project) -> tuple[Guess | None, tuple[str, ...]]:
    """Return the best guess, or None, and those of LOOKED_FOR that were not found."""
    found = (procfile.guess(project), application.guess(project), node.guess(project))
    missing = tuple(what for one, what in zip(found, LOOKED_FOR, strict=True) if one is None)
    # A Procfile says how the application runs elsewhere now, so it counts more than inference.
    guesses = [one for one in found if one]
    if not guesses:
        return None, missing
    first = guesses[0]
    others = tuple(one.found for one in guesses if one.found != first.found)
    return replace(first, others=(*first.others, *others)), missing
