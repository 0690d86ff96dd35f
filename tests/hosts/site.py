"""Four hosts, the balancer before them, and the files that Ansible is given to deploy to them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import wait_for
from tests.hosts.network import Network
from tests.packaging.roots import Debian
from tests.systemd.machine import ROOT

HOSTS = ("host1", "host2", "host3", "host4")
ANSIBLE = ROOT / "contrib" / "ansible"
WORKER = ROOT / "tests" / "e2e" / "programs" / "worker.py"
PORT = 8000
CONFIG = """\
name = "{{ sockmgr_name }}"

[listen]
http = "tcp://0.0.0.0:8000"

[service.web]
command = ["/usr/bin/python3", "worker.py"]
workers = 2
cwd = "{{ sockmgr_root }}/current"
"""
# It repeats nothing: what a host loses is seen.
HAPROXY = """\
global
    stats socket {directory}/admin.sock mode 600 level admin
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend web
    bind 127.0.0.1:8000
    default_backend shop
backend shop
    option httpchk
    default-server check inter 500ms
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """How a run of the playbook ended: its exit status, what it printed, and its seconds."""

    status: int
    text: str
    seconds: float

    def tasks_of(self, host: str) -> int:
        """Return how many tasks had been done on a host."""
        found = re.search(rf"^{host} *: ok=(\d+)", self.text, re.MULTILINE)
        return int(found[1]) if found else 0


class Site:
    """The hosts are booted, and have the key; the balancer runs. `deploy` runs the playbook."""

    def __init__(self, network: Network, root: Path, directory: Path, deb: Path) -> None:
        self.network, self.directory = network, directory
        self.root, self._deb = root, deb
        self.machines: dict[str, Debian] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Boot the hosts and the balancer, which end with the block."""
        key = self.directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        public = key.with_suffix(".pub").read_text()
        addresses = {}
        with contextlib.ExitStack() as stack:
            for number, name in enumerate(HOSTS, 1):
                self.machines[name] = machine = stack.enter_context(Debian(self.root))
                addresses[name] = self.network.connect(machine, number)
                machine.write("/root/.ssh/authorized_keys", public)
            self._write_files(addresses)
            stack.enter_context(self._balancer(addresses))
            yield

    def _write_files(self, addresses: dict[str, str]) -> None:
        self.addresses = addresses
        (self.directory / "shop.toml.j2").write_text(CONFIG)
        kind, host_key, *_ = (
            (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        )  # one for all: they have the same files
        known = self.directory / "known_hosts"
        known.write_text("".join(f"{each} {kind} {host_key}\n" for each in addresses.values()))
        ssh = f"-o UserKnownHostsFile={known} -o IdentitiesOnly=yes"
        inventory = {
            "sockmgr": {
                "hosts": {name: {"ansible_host": each} for name, each in addresses.items()},
                "vars": {
                    "ansible_user": "root",
                    "ansible_ssh_private_key_file": str(self.directory / "key"),
                    "ansible_ssh_common_args": ssh,
                    "ansible_python_interpreter": "/usr/bin/python3",
                    "sockmgr_name": "shop",
                    "sockmgr_config": str(self.directory / "shop.toml.j2"),
                    "sockmgr_balancer_socket": str(self.directory / "admin.sock"),
                },
            },
            "balancers": {
                "hosts": {
                    "balancer": {
                        "ansible_connection": "local",
                        "ansible_python_interpreter": sys.executable,
                    }
                }
            },
        }
        (self.directory / "inventory.json").write_text(json.dumps(inventory))

    @contextlib.contextmanager
    def _balancer(self, addresses: dict[str, str]) -> Iterator[None]:
        config = self.directory / "haproxy.cfg"
        servers = (f"    server {name} {each}:{PORT}\n" for name, each in addresses.items())
        config.write_text(HAPROXY.format(directory=self.directory) + "".join(servers))
        # -db: in the foreground, one process.
        argv = self.network.command("haproxy", "-db", "-f", str(config))
        with (self.directory / "haproxy.log").open("w") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)
            try:
                yield
            finally:
                process.terminate()
                process.wait()

    # --- What is done to it ----------------------------------------------------------------------

    def install(self) -> Play:
        """Install the package everywhere at once, and deploy the first release."""
        more = (f"sockmgr_deb={self._deb}", f"sockmgr_serial={len(HOSTS)}")
        return self.deploy("1", *(word for each in more for word in ("-e", each)))

    def deploy(self, release: str, *more: str, fault: str = "none") -> Play:
        """Deploy a release, which answers with its name and has this fault."""
        argv = self.network.command(
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i", str(self.directory / "inventory.json"), str(ANSIBLE / "deploy.yml"),
            "-e", f"sockmgr_release={release}",
            "-e", f"sockmgr_archive={self._archive(release, fault)}", *more,
        )  # fmt: skip
        env = os.environ | {
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_HOME": str(self.directory / "ansible"),
        }
        began = time.monotonic()
        log = self.directory / f"ansible-{release}.log"
        with log.open("w") as output:
            done = subprocess.run(
                argv, env=env, stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False
            )
        seconds = time.monotonic() - began
        return Play(status=done.returncode, text=log.read_text(), seconds=seconds)

    def _archive(self, release: str, fault: str) -> Path:
        path, files = self.directory / f"shop-{release}.tar.gz", self.directory / release
        files.mkdir()
        (files / "version").write_text(release)
        (files / "fault").write_text(fault)
        (files / "worker.py").write_bytes(WORKER.read_bytes())
        with tarfile.open(path, "w:gz") as archive:
            archive.add(files, ".")
        return path

    # --- What is seen of it ----------------------------------------------------------------------

    def await_healthy(self) -> None:
        """Wait until the balancer sends clients to each host."""
        wait_for(lambda: set(self._balanced("status").values()) == {"UP"}, "the balancer's checks")

    def served(self) -> dict[str, int]:
        """Return how many requests the balancer has sent to each host."""
        return {name: int(value) for name, value in self._balanced("stot").items()}

    def _balanced(self, field: str) -> dict[str, str]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.directory / "admin.sock"))
            sock.sendall(b"show stat\n")
            with sock.makefile() as answer:
                names, *lines = (
                    line.strip().lstrip("# ").split(",") for line in answer if line.strip()
                )
        rows = [dict(zip(names, line, strict=False)) for line in lines]
        return {row["svname"]: row[field] for row in rows if row["svname"] in HOSTS}

    def current(self, host: str) -> str:
        """Return where the link of the current release leads to on a host."""
        return self.machines[host].run("readlink", "/srv/shop/current").stdout.strip()

    def serving(self, host: str) -> str:
        """Return what the release that serves on a host answers."""
        argv = ("python3", "-c", ASK)
        return str(json.loads(self.machines[host].run(*argv).stdout)["version"])

    def asked_by_ssh(self, host: str, method: str, parameters: str) -> str:
        """Ask the manager on a host by systemd's own client on the first one; return the answer."""
        first = self.machines[HOSTS[0]]
        for name, file in (("id_ed25519", "key"), ("known_hosts", "known_hosts")):
            first.write(f"/root/.ssh/{name}", (self.directory / file).read_text())
            first.run("chmod", "600", f"/root/.ssh/{name}")
        address = f"ssh-unix:{self.addresses[host]}:/run/sockmgr-shop/shop.sock"
        return first.run("varlinkctl", "-j", "call", address, method, parameters).stdout.strip()


ASK = f"""\
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:{PORT}", timeout=10).read().decode())
"""
