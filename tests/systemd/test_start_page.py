"""The whole of docs/start.md, and so its units too, on a machine with systemd."""

from __future__ import annotations

import pytest

from tests.systemd.machine import PYTHON, Machine

UVICORN = f"""\
#!/bin/sh
export PYTHONPATH=/srv/site
exec {PYTHON} -m uvicorn "$@"
"""


@pytest.mark.timeout(300)
def test_each_command_of_the_page_does_what_the_page_says(machine: Machine) -> None:
    machine.write("/usr/local/bin/uvicorn", UVICORN)
    machine.run("chmod", "755", "/usr/local/bin/uvicorn")
    machine.run(PYTHON, "/srv/checkout/tests/start_page.py", "--systemd", timeout=280)
