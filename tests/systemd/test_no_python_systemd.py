"""Where python-systemd is not installed, we speak to a real systemd and its journal ourselves."""

from __future__ import annotations

import json
from pathlib import Path

from tests.systemd.machine import Machine
from tests.systemd.mishaps import LOAD, answered, killed, serving
from tests.systemd.site import SERVICE, Site

JOURNAL = (Path(__file__).parents[2] / "contrib/systemd/drop-ins/journal.conf").read_text()
HIDDEN = f"InaccessiblePaths=/srv/site/systemd\n{JOURNAL.partition('[Service]')[2]}"


def environment(site: Site) -> str:
    """Return what Python says when the manager's own process asks for python-systemd."""
    ask = ["nsenter", f"--mount=/proc/{site.main_pid}/ns/mnt", "env", "PYTHONPATH=/srv/site"]
    python = ["/srv/base/bin/python3", "-c", "import systemd.daemon"]
    return site.machine.run(*ask, *python, check=False).stderr


def test_sockets_store_journal_and_readiness_work_and_a_verdict_says_where_to_look(
    machine: Machine,
) -> None:
    site = serving(machine, drop_in=HIDDEN)
    assert "ModuleNotFoundError" in environment(site)
    workers = site.workers()
    with site.load(LOAD) as load:
        killed(site)
        answered(load.result, 20)
        assert site.workers() == workers
        site.deploy("2")
        machine.systemctl("reload", SERVICE)
    assert not load.result.failed, load.result
    site.deploy("3", fault="exits")
    done = machine.run("sockmgr", "reload", "--json", "-c", site.config, check=False)
    machine.run("journalctl", "--sync")
    (verdict,) = json.loads(done.stdout)
    assert verdict["output"][:2] == ["cannot reach the database", "giving up"]
    found = machine.run(
        "journalctl", "-q", "--output=json", f"SYSLOG_IDENTIFIER={verdict['worker']}"
    ).stdout
    entries = [json.loads(line) for line in found.splitlines()]
    said = next(entry for entry in entries if entry["MESSAGE"] == "giving up")
    assert (said["_TRANSPORT"], said["PRIORITY"], said["_SYSTEMD_UNIT"]) == ("stdout", "6", SERVICE)
    assert "generation 2, 2/2 workers" in machine.property(SERVICE, "StatusText")
