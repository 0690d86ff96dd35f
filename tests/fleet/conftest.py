"""Profiles of the property tests, and the door by which a mutant comes in."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

from tests.fleet.mutants import install, installed, named

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile(
    "ci", derandomize=True, max_examples=150, stateful_step_count=40, deadline=None,
    phases=[Phase.generate], report_multiple_bugs=False,  # shrinking takes minutes: see soak
    database=None, suppress_health_check=QUIET,
)  # fmt: skip
settings.register_profile(
    "mutants", settings.get_profile("ci"), max_examples=60,
    report_multiple_bugs=False,
)  # fmt: skip
settings.register_profile(
    "soak", max_examples=5000, stateful_step_count=100, deadline=None, print_blob=True,
    suppress_health_check=QUIET,
)  # fmt: skip
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Set by test_mutants.py only, before anything imports the module that the mutant is of.
mutant = os.environ.get("SOCKMGR_MUTANT", "")
if mutant and not installed(mutant):
    install(named(mutant))
