"""Preloaded workers under systemd: adopted from the fd store, and heard through the journal."""

from __future__ import annotations

from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.mishaps import DROP_IN, HTTP, LOAD, answered, killed
from tests.systemd.site import Site

APP = """
import json, os
VERSION = open("version").read()
async def app(scope, receive, send):
    body = json.dumps({"version": VERSION, "pid": os.getpid()}).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
"""


def test_preloaded_workers_outlive_their_manager_and_the_next_reloads_them(
    machine: Machine,
) -> None:
    more = 'app = "main:app"\npreload = true\nhttp = { access_log = false }'
    site = Site(machine, HTTP, command=(), more=more)
    (site.directory("http") / "main.py").write_text(APP)
    site.deploy("1")
    site.install()
    site.drop_in(DROP_IN)
    site.start()
    workers = site.workers()
    with site.load(LOAD) as load:
        killed(site)
        answered(load.result, 20)
        assert site.workers() == workers
        site.deploy("2")
        machine.run("sockmgr", "reload", "-c", site.config)
        wait_for(lambda: any(row.version == "2" for row in load.result.rows), "the new version")
        (site.directory("http") / "main.py").write_text("1 / 0")
        done = machine.run("sockmgr", "reload", "-c", site.config, check=False)
        assert done.returncode == 1
        assert "ZeroDivisionError" in done.stdout
        result = load.stop()
    assert not result.failed, result.failures()
    assert "template ended" in site.journal
