"""Each worker knows who it is, and has what is of its slot, also as the copy of a template."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.e2e.preloading import LOAD, config
from tests.e2e.programs.release import answered, wait_in_log
from tests.helpers.load import Load

WHO = """
import os
from app import app as well

def told():
    own = [f"SOCKMGR_{name}" for name in ("SERVICE", "GENERATION", "SLOT", "WORKER")]
    return " ".join(os.environ.get(name, "-") for name in [*own, "DATA"])

print("imported", told())

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        print("serves", told())
    await well(scope, receive, send)
"""
JOB = """
[service.job]
command = ["sh", "-c", 'echo "works {slot} $SOCKMGR_WORKER $DATA"; exec sleep 600']
listen = []
workers = 2
ready = { exec = ["sh", "-c", 'echo "asked {slot} $SOCKMGR_SLOT"'] }
env = { DATA = "job-{slot}" }
"""


def test_workers_of_a_template_and_of_a_command_know_their_slots_over_a_reload(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    (app.directory / "who.py").write_text(WHO)
    more = 'listen = ["http"]\nenv = { DATA = "web-{slot}" }'
    text = config(app, target="who:app", more=more) + JOB
    with Manager(tmp_path, text) as manager, Load(manager.target(), LOAD) as load:
        answered(load, "1")
        app.deploy("2")
        assert manager.reload().code == 0
        answered(load, "2")
        result = load.stop()
        assert not result.failed, result.failures()
        for generation in (1, 2):
            wait_in_log(manager, f"web@{generation}.template | imported web {generation} - - -")
            for slot in (1, 2):
                name = f"web@{generation}.{slot}"
                wait_in_log(manager, f"{name} | serves web {generation} {slot} {name} web-{slot}")
                wait_in_log(
                    manager, f"job@{generation}.{slot} | works {slot} job@{generation}.{slot} job-"
                )
                wait_in_log(manager, f"job@{generation}.{slot} ready? | asked {slot} {slot}")
        wait_for(lambda: len(manager.workers()) == 2, "the old workers to be gone")
        for worker in manager.workers():
            name = f"web@2.{worker['slot']}"
            process = Path(f"/proc/{worker['pid']}")
            assert process.joinpath("comm").read_text() == f"{name}\n"
            title = process.joinpath("cmdline").read_bytes().rstrip(b"\0").decode()
            assert title == f"sockmgr worker {name} who:app"
        template = re.findall(r"template started template=web@2.template pid=(\d+)", manager.log)
        shown = Path(f"/proc/{template[-1]}/cmdline").read_bytes().rstrip(b"\0").decode()
        assert shown == "sockmgr template web@2 who:app"
