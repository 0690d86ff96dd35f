"""Probes and warm-ups where systemd holds the sockets and the manager has `User=`."""

from __future__ import annotations

from functools import partial

from tests.e2e.apps import App
from tests.e2e.harness import wait_for
from tests.e2e.probing import PROBED
from tests.systemd.machine import Machine
from tests.systemd.mishaps import DROP_IN as SOON
from tests.systemd.mishaps import answered, killed
from tests.systemd.site import SERVICE, Site

KEYS = """ready = { http = "/", expect = 200, timeout = "20s" }
ready_timeout = "8s"
rollout.warmup = ["/"]
"""


def test_what_does_not_answer_as_expected_never_serves_and_nothing_is_lost(
    machine: Machine,
) -> None:
    site = Site(machine, {"http": "tcp://127.0.0.1:8000"}, more=KEYS)
    site.deploy("1")
    site.install()
    site.drop_in(SOON)
    site.start()
    with site.load("short:rate=100") as load:
        site.deploy("2")
        machine.systemctl("reload", SERVICE)
        killed(site)
        machine.run("sed", "-i", "s/expect = 200/expect = 404/", site.config)
        site.deploy("3")
        assert machine.systemctl("reload", SERVICE, check=False).returncode == 1
        assert "probe GET / on http answered 200 (expected 404)" in site.journal
        assert site.get()["version"] == "2"
    assert not load.result.failed, load.result.failures()


HEALTHY = """app = "main:app"
accept = "SERVICE"
healthy = { http = "/healthz", every = "100ms", timeout = "10s" }
"""


def test_a_worker_that_fails_its_probes_is_replaced_by_whichever_manager_there_is(
    machine: Machine,
) -> None:
    ports = {"per-worker": 8000, "dispatch": 8001}
    listen = {name: f"tcp://127.0.0.1:{port}" for name, port in ports.items()}
    site = Site(machine, listen, command=(), more=HEALTHY)
    for name in ports:
        App("asgi", site.directory(name))
        main = f"import sys\nsys.path.insert(0, 'asgi')\n{PROBED}"
        (site.directory(name) / "main.py").write_text(main)
    site.install()
    site.drop_in(SOON)
    site.start()
    with site.load("short:rate=60") as load, site.load("short:rate=60", port=8001) as other:
        killed(site)
        for name in ports:
            well, sick = site.workers(name)
            (site.directory(name) / "health").write_text(f"503 {sick}")
            wait_for(partial(has_successor, site, name, sick), f"the successor in {name}")
            assert well in site.workers(name)
            assert f"worker unhealthy worker={name}@1.2" in site.journal
        for one in (load, other):
            answered(one.result, 40)
    for one in (load, other):
        assert not one.result.failed, one.result.failures()


def has_successor(site: Site, service: str, pid: int) -> bool:
    workers = site.workers(service)
    return pid not in workers and list(workers.values()) == ["ready", "ready"]
