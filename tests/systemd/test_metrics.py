"""The shipped units of the exporter, in a real systemd, beside a manager of the shipped name."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from tests.e2e.exporter import samples
from tests.systemd.counting import APP, MORE
from tests.systemd.machine import Machine
from tests.systemd.site import Site

CONTRIB = Path(__file__).parents[2] / "contrib" / "systemd"


def serve(machine: Machine, command: str = "") -> None:
    """Start the socket of the shipped exporter, with a command of its own if one is given."""
    for kind in ("socket", "service"):
        unit = f"sockmgr-metrics.{kind}"
        machine.write(f"/etc/systemd/system/{unit}", (CONTRIB / unit).read_text())
    if command:
        drop_in = "/etc/systemd/system/sockmgr-metrics.service.d/command.conf"
        machine.write(drop_in, f"[Service]\nExecStart=\nExecStart={command}\n")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "sockmgr-metrics.socket")


def scrape() -> dict[str, float]:
    with urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=30) as answer:
        return samples(answer.read().decode())


def test_the_shipped_exporter_is_started_by_a_scrape_and_may_ask_the_manager(
    machine: Machine,
) -> None:
    site = Site(machine, {"http": "tcp://127.0.0.1:8000"}, name="sockmgr")
    site.install()
    serve(machine)
    assert site.inside(scrape) == {"sockmgr_up": 0.0}
    assert "no manager answers" in machine.journal("sockmgr-metrics.service")
    site.start()
    found = site.inside(scrape)
    assert found["sockmgr_up"] == 1
    assert found['sockmgr_service_workers{service="http",state="ready"}'] == 2


def test_the_shipped_exporter_may_read_what_the_application_counts(machine: Machine) -> None:
    http = {"http": "tcp://127.0.0.1:8000"}
    site = Site(machine, http, name="sockmgr", command=(), more=MORE)
    (site.directory("http") / "main.py").write_text(APP)
    site.install()
    serve(machine, f"sockmgr metrics --application -c {site.config}")
    site.start()

    def ask() -> None:
        with urllib.request.urlopen("http://127.0.0.1:8000/", timeout=30) as answer:
            answer.read()

    site.inside(ask)
    assert site.inside(scrape)['shop_answers_total{service="http"}'] == 1
