"""A manager with `User=` and CAP_BPF, by the drop-in: queues take turns, workers are as before."""

from __future__ import annotations

from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.round_robin import DROP_IN, choice
from tests.systemd.site import SERVICE, Site

# Three workers get ready, so a reload by portions stays where both generations are fed.
MORE = """
rollout.surge = 1
ready = { exec = ["sh", "-c", 'cd "$TMPDIR"; exec 2>/dev/null; mkdir 1 || mkdir 2 || mkdir 3'] }
"""


def capabilities(site: Site, pid: int) -> str:
    return site.machine.run("grep", "-E", "^Cap(Prm|Amb)", f"/proc/{pid}/status").stdout


def test_with_the_drop_in_queues_take_turns_and_no_worker_gets_the_capability(
    machine: Machine,
) -> None:
    site = Site(machine, {"http": "tcp://127.0.0.1:8000"}, more=MORE)
    site.install()
    site.drop_in(DROP_IN.read_text())
    site.start()
    machine.systemctl("reload", "--no-block", SERVICE)
    wait_for(lambda: "queues take turns" in site.journal, "both generations to be fed")
    assert choice(site) == "round robin (eBPF)"
    halfway = ["ready", "ready", "starting"]
    wait_for(lambda: sorted(site.workers().values()) == halfway, "an old worker to be gone")
    workers = site.workers()
    for pid in workers:
        assert capabilities(site, pid) == f"CapPrm:\t{0:016x}\nCapAmb:\t{0:016x}\n"
    machine.run("sockmgr", "upgrade", "-c", site.config)
    assert choice(site) == "round robin (eBPF)"
    assert site.workers().keys() == workers.keys()
    machine.run("kill", "-KILL", str(site.main_pid))
    wait_for(lambda: "worker adopted" in site.journal and site.main_pid, "the next manager")
    wait_for(lambda: site.status()["manager"]["pid"] == site.main_pid, "it to answer")
    assert choice(site) == "round robin (eBPF)"
