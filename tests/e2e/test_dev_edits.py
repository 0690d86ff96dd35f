"""Forty edits of a real application under load: none is missed, and nobody is refused."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest

from tests.e2e.apps import App
from tests.e2e.dev import Dev
from tests.e2e.harness import wait_for
from tests.helpers.load import Load

EDITS = 40
SERVER = ("uvicorn", "--no-access-log", "--log-level", "warning", "app:app")
BROKEN = (
    "x = (",
    "import a_module_that_nobody_installed",
    "1 / 0",
    "import os; os._exit(3)",
    "raise SystemExit('a word at the end')",
)
HANGS = "import time; time.sleep(1000)"


@pytest.mark.timeout(300)
def test_forty_edits_under_load_lose_nothing_and_every_good_one_serves(tmp_path: Path) -> None:
    app, broken = App("asgi", tmp_path), cycle(BROKEN)
    listen = ("--listen", "http=tcp://127.0.0.1:0")
    with (
        Dev(app.directory, *listen, "--", *SERVER) as dev,
        Load(dev.target(), ["short:rate=50"]) as load,
    ):

        def serves(version: int) -> bool:
            return any(row.version == str(version) for row in load.result.rows[-200:])

        for edit in range(2, EDITS + 2):
            seen = len(dev.text)
            match edit % 10:
                case 3 if edit in (13, 33):  # makes way for the next
                    app.deploy_code(f"print('begins {edit}'); {HANGS}")
                    dev.see(f"begins {edit}", after=seen)
                case 3 | 6:  # the next comes while it fails
                    app.deploy_code(f"print('begins {edit}'); {next(broken)}")
                    dev.see(f"begins {edit}|^SyntaxError", after=seen)
                case 9:
                    app.deploy_code(next(broken))
                    dev.see(r"^web \d+ failed: \d+ keeps serving, version\.py$", after=seen)
                case _:
                    app.deploy(str(edit))
                    wait_for(lambda version=edit: serves(version), f"version {edit}")
        answered = len(load.result.rows)
        wait_for(lambda: len(load.result.rows) > answered + 10, "more answers")
        found = load.stop()
        generation = dev.status()["services"]["web"]["generation"]
    assert not found.failed, found.failures()
    assert {row.version for row in found.rows[answered:]} == {str(EDITS + 1)}
    assert generation <= EDITS + 1, "an edit was reloaded more than once"
    assert found.mixed() == 0, "an old generation took a connection after a newer one"
