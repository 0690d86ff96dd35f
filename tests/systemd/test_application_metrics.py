"""What workers of another user count themselves is summed up from manager to manager."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.exporter import samples
from tests.e2e.harness import wait_for
from tests.systemd.counting import APP, MORE
from tests.systemd.machine import Machine
from tests.systemd.mishaps import DROP_IN, HTTP, LOAD, killed, restarted
from tests.systemd.site import Site


@pytest.mark.parametrize("user", ["sockmgr", "daemon"])
def test_counters_go_on_from_manager_to_manager_and_end_with_the_last(
    machine: Machine, user: str
) -> None:
    users = {"http": user} if user != "sockmgr" else None
    site = Site(machine, HTTP, users=users, command=(), more=MORE)
    (site.directory("http") / "main.py").write_text(APP)
    site.install()
    site.drop_in(DROP_IN)
    site.start()

    def counted() -> float:
        done = machine.run("sockmgr", "metrics", "--application", "-c", site.config)
        return samples(done.stdout)['shop_answers_total{service="http"}']

    def names() -> set[str]:
        found = machine.run("sh", "-c", "ls /run/sockmgr*/shop.metrics/http").stdout
        return {Path(name).stem.rpartition("_")[2] for name in found.split()}

    with site.load(LOAD) as load:
        before = 0.0
        for end in (killed, restarted):
            end(site)
            machine.run("sockmgr", "reload", "-c", site.config)
            now = counted()
            assert now > before
            before = now
        result = load.stop()
    assert not result.failed, result.failures()
    wait_for(lambda: len(site.workers()) == 2, "the old workers to end")
    wait_for(lambda: len(names()) == 3, "files to be merged")  # two workers, and the sums
    assert counted() == len(result.rows)
    machine.systemctl("stop", "shop.service")
    assert machine.run("sh", "-c", "ls /run/sockmgr*/shop.metrics", check=False).returncode
    assert "not merged" not in site.journal
