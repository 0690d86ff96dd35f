"""Servers behind wrappers, and what workers have left, when a unit of systemd's ends."""

from __future__ import annotations

import http.client
import threading

from tests.e2e.harness import wait_for
from tests.systemd.endings import stopped, stopped_while_it_waits_for_the_restart
from tests.systemd.machine import PYTHON, Machine
from tests.systemd.mishaps import killed, nobody_is_left
from tests.systemd.site import Site

SERVER = f"{PYTHON} -S -E /srv/checkout/tests/e2e/programs/slow_server.py"


def serving(machine: Machine, script: str) -> Site:
    site = Site(
        machine, {"http": "tcp://127.0.0.1:8000"}, command=("sh", "-c", script),
        more="listen_pid = false",
    )  # fmt: skip
    site.install()
    site.start()
    return site


def test_a_server_behind_a_wrapper_finishes_though_no_manager_can_come_back(
    machine: Machine,
) -> None:
    site = serving(machine, f"{SERVER}; echo bye")
    answers: list[int] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
        connection.request("GET", "/4")
        answers.append(connection.getresponse().status)
        connection.close()

    asking = threading.Thread(target=site.inside, args=(ask,))
    asking.start()
    wait_for(lambda: "asked" in site.journal, "the request to be in hand")
    stopped_while_it_waits_for_the_restart(site)
    asking.join()
    assert answers == [200]
    wait_for(lambda: nobody_is_left(site), "the end of all")


def test_a_stop_ends_daemons_that_workers_had_left_before_their_manager_was_killed(
    machine: Machine,
) -> None:
    site = serving(machine, f"(setsid sleep 1000 &); exec {SERVER}")
    killed(site)
    stopped(site)
    assert nobody_is_left(site)
