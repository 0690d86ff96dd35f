"""The door by which a mutant comes in."""

from __future__ import annotations

import os

from tests.fleet.mutants import install, installed, named

# Set by mutants.py only, before anything imports the module that the mutant is of.
mutant = os.environ.get("SOCKMGR_MUTANT", "")
if mutant and not installed(mutant):
    install(named(mutant))
