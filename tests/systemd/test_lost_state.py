"""A state that cannot be used: sockets are kept, and workers are replaced, not lost."""

from __future__ import annotations

import pytest

from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.site import SERVICE, Site

HTTP = {"http": "tcp://127.0.0.1:8000"}
# Both memfds of the state; `$1` is the manager, `$2` what is written over what is there.
OVERWRITE = r"""
kill -STOP $1
for fd in /proc/$1/fd/*; do
    case $(readlink $fd) in
        /memfd:state*) printf "$2" > $fd; written=yes ;;
    esac
done
kill -KILL $1
[ -n "$written" ]
"""


@pytest.fixture
def site(machine: Machine) -> Site:
    """Return a site that serves version 1, in its second generation."""
    site = Site(machine, HTTP)
    site.install()
    site.drop_in("[Service]\nRestartSec=100ms\n")
    site.start()
    machine.systemctl("reload", SERVICE)
    return site


def succeeded(site: Site, state: str) -> None:
    """Write `state` over the manager's, kill it, and wait for another one to serve."""
    restarts = site.machine.property(SERVICE, "NRestarts")
    site.machine.run("sh", "-c", OVERWRITE, "sh", str(site.main_pid), state)
    wait_for(lambda: site.machine.property(SERVICE, "NRestarts") != restarts, "the restart")
    wait_for(lambda: site.machine.property(SERVICE, "ActiveState") == "active", "READY=1")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("", "there is none of this boot"),
        ("garbage", "what was left as state is none"),
        ("sockmgr-state 2 7 0000\\n{}", "the state is damaged"),
        (
            "sockmgr-state 99 7 "
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\\n{}",
            "the state was written by a newer sockmgr",
        ),
    ],
    ids=["empty", "garbage", "damaged", "newer"],
)
def test_workers_without_a_state_serve_until_others_have_replaced_them(
    site: Site, state: str, told: str
) -> None:
    before = set(site.workers())
    with site.load("short:rate=100") as load:
        succeeded(site, state)
        wait_for(lambda: not before & set(site.workers()), "other workers")
    assert not load.result.failed, load.result
    assert told in site.journal
    assert site.status()["services"]["http"]["generation"] == 3
    assert len(site.workers()) == 2
    site.machine.systemctl("stop", SERVICE)
    assert site.machine.run("ps", "-u", "sockmgr", check=False).returncode == 1
