"""A network namespace with a bridge, to which machines are connected."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.systemd.machine import Machine

# Of the range for benchmarks of networks (RFC 2544), which nobody routes.
ADDRESS = "198.18.0.{}"


class Network:
    """The namespace and its bridge. Leaving it ends both; the kernel then removes the links."""

    def __enter__(self) -> Self:
        script = "ip link set lo up && ip link add hosts type bridge && ip link set hosts up && "
        script += (
            f"ip addr add {ADDRESS.format(1)}/24 dev hosts && echo made && exec sleep infinity"
        )
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", script],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout
        assert self._holder.stdout.readline() == "made\n", "there is no network of our own"
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.communicate()

    def connect(self, machine: Machine, number: int) -> str:
        """Connect a machine; return its address."""
        link, address = f"host{number}", ADDRESS.format(10 + number)
        there = _inside(machine.pid)
        for argv in (
            (*self.command(), "ip", "link", "add", link, "type", "veth",
             "peer", "name", "eth0", "netns", str(machine.pid)),
            (*self.command(), "ip", "link", "set", link, "master", "hosts", "up"),
            (*there, "ip", "addr", "add", f"{address}/24", "dev", "eth0"),
            (*there, "ip", "link", "set", "eth0", "up"),
        ):  # fmt: skip
            subprocess.run(argv, check=True)
        return address

    def command(self, *argv: str) -> Sequence[str]:
        """Return the command that runs `argv` in this network."""
        return [*_inside(self.pid), *argv]

    @property
    def pid(self) -> int:
        """A process of this network."""
        return self._holder.pid


def _inside(pid: int) -> Sequence[str]:
    return ["nsenter", f"--net={Path('/proc', str(pid), 'ns/net')}", "--"]
