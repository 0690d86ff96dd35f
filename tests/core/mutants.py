"""One-line edits of the core that the suite must notice: a green suite proves only what it can lose."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """Replace `old`, which occurs once in `module`, by `new`."""

    name: str
    module: str
    old: str
    new: str


MUTANTS: tuple[Mutant, ...] = ()


def source(module: str) -> tuple[str, str]:
    """Return the path and the text of a module, without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123 - a path as text is at hand
        return spec.origin, file.read()


def mutated(mutant: Mutant) -> str:
    """Return the module's text with the edit made, which must apply exactly once."""
    text = source(mutant.module)[1]
    found = text.count(mutant.old)
    assert found == 1, f"mutant {mutant.name!r}: its text is {found} times in {mutant.module}"
    return text.replace(mutant.old, mutant.new)


def install(name: str) -> None:
    """Put the mutant called `name` in the place of the real module, for everybody who imports it."""
    mutant = next(m for m in MUTANTS if m.name == name)
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None
    assert mutant.module not in sys.modules, "too late: the real module is imported already"
    module = importlib.util.module_from_spec(spec)
    sys.modules[mutant.module] = module
    exec(compile(mutated(mutant), f"<mutant {name}>", "exec"), module.__dict__)
