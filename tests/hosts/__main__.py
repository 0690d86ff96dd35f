"""`make test-hosts`: what is lost when Ansible deploys releases to four hosts behind an HAProxy.

Each host is a Debian that is booted in namespaces of its own, with an sshd. The exit status is 0 if
no request was lost, and a broken release came no further than to the first host. As root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.load import Target
from tests.hosts.network import Network
from tests.hosts.site import ANSIBLE, HOSTS, Play, Site
from tests.packaging.roots import debian, install, needed, package
from tests.systemd.mishaps import answered
from tests.systemd.site import LoadInside

NEEDED = ("debootstrap", "haproxy", "ssh", "ssh-keygen", "ip")
LOAD = ("short:rate=30", "ka:rate=30,conns=8")
DRAINED = ("-e", "sockmgr_balancer=balancer")
HEAD = "| what | requests | failed | seconds | seconds a host |\n" + "|---" * 5 + "|"


def main(words: Sequence[str]) -> int:
    """Deploy to hosts of this release of Debian; an assertion ends it."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        print(f"this needs root and {', '.join(missing or NEEDED)}", file=sys.stderr)
        return 1
    subprocess.run(
        [Path(sys.executable).with_name("ansible-lint"), "--offline", "--strict", "-q", "."],
        cwd=ANSIBLE, check=True,
    )  # fmt: skip
    (suite,) = words
    root = debian(suite, "openssh-server", "python3-apt")
    with tempfile.TemporaryDirectory(prefix="sockmgr-hosts-") as made:
        deb = package(root, Path(made, "deb"))
        install(root, *needed(deb))
        with Network() as network:
            site = Site(network, root, Path(made), deb)
            with site.running():
                play(site)
    return 0


def play(site: Site) -> None:
    """Deploy release after release; print what each cost."""
    succeeded(site.install())
    site.await_healthy()
    print(HEAD, flush=True)
    with_load(site, "2", "a release, clients stay")
    with_load(site, "3", "a release, each host drained before", *DRAINED)
    everywhere(site, "3")
    with_load(site, "4", "a release that does not start", fault="exits")
    back_on_the_first(site, "4", "3")
    with_load(site, "5", "a release that fails the smoke test", *smoke("4"), fault="none")
    back_on_the_first(site, "5", "3")
    if shutil.which("varlinkctl", path=site.root / "usr" / "bin"):
        for host in HOSTS:
            told = site.asked_by_ssh(host, "io.sockmgr.Manager.Health", '{"ready": true}')
            print(f"{host}: {told}", flush=True)


def with_load(site: Site, release: str, what: str, *more: str, fault: str = "") -> None:
    """Deploy a release under load, one with a `fault` to be refused; print what it cost."""
    before = site.served()
    target = Target.at_url("http://127.0.0.1:8000")
    with LoadInside(site.network.pid, target, LOAD) as load:
        answered(load.result, 100)
        found = site.deploy(release, *more, fault=fault or "none")
        answered(load.result, 100)
    hosts = 1 if fault else len(HOSTS)
    count, failed = len(load.result.rows), len(load.result.failed)
    seconds = f"{found.seconds:.0f} | {found.seconds / hosts:.0f}"
    print(f"| {what} | {count} | {failed} | {seconds} |", flush=True)
    assert not failed, load.result
    assert all(site.served()[host] > before[host] for host in HOSTS)
    if fault:
        stopped(found)
    else:
        succeeded(found)


def smoke(version: str) -> Sequence[str]:
    """Return the arguments that have a host ask whether `version` is what serves."""
    test = f'["grep", "-qx", "{version}", "/srv/shop/current/version"]'
    return "-e", f'{{"sockmgr_smoke": {test}}}'


def succeeded(found: Play) -> None:
    assert found.status == 0, found.text


def stopped(found: Play) -> None:
    """The first host failed, and nothing was done on the others."""
    assert found.status != 0, found.text
    first, *others = HOSTS
    assert found.tasks_of(first), found.text
    assert not any(map(found.tasks_of, others)), found.text


def everywhere(site: Site, release: str) -> None:
    for host in HOSTS:
        assert site.serving(host) == release, host
        assert site.current(host) == f"releases/{release}", host


def back_on_the_first(site: Site, broken: str, release: str) -> None:
    """All serve `release`, and only the first host has the files of the broken one."""
    everywhere(site, release)
    for host in HOSTS:
        path = f"/srv/shop/releases/{broken}"
        there = site.machines[host].run("test", "-d", path, check=False).returncode == 0
        assert there == (host == HOSTS[0]), host


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
