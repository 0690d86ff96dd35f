"""What all tests share: a clean start, and the order. Those that want the machine come last."""

from __future__ import annotations

import compileall
import ctypes
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from sockmgr.kernel.open_files import OpenFiles, close_on_exec_all

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

# Properties are tried with the same examples each time: a red run is a change's, and no chance's.
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile(
    "ci", derandomize=True, max_examples=60, stateful_step_count=40, deadline=None,
    phases=[Phase.generate], report_multiple_bugs=False,  # shrinking takes minutes: see soak
    database=None, suppress_health_check=QUIET,
)  # fmt: skip
settings.register_profile(
    "soak", max_examples=5000, stateful_step_count=100, deadline=None, print_blob=True,
    suppress_health_check=QUIET,
)  # fmt: skip
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    """Keep descriptors that whoever runs the tests left open from the programs under test.

    And compile sockmgr once for the hundreds of processes that run it: most of them are told not to
    write bytecode, and would compile all of it each.
    """
    close_on_exec_all()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has what it starts in the background ignore it, and so would what tests start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # not in each process of pytest-xdist
        compileall.compile_dir(Path(__file__).parents[1] / "sockmgr", quiet=2)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests/e2e behind everything else, in whatever order the rest is."""
    items.sort(key=lambda item: "e2e" in item.path.parts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests recorded of themselves, as the seed by which they were drawn."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(autouse=True)
def _ourselves_as_before() -> Iterator[None]:
    """Undo what a manager does to its process, for tests that call it in ours."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    given, limit = OpenFiles.given, resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    OpenFiles.given = given
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
