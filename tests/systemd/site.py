"""A site on a machine: applications, the config of their manager, and units from `sockmgr units`.

Looks from the network of the machine; the manager and its workers are the user sockmgr.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sockmgr.config.config import parse
from sockmgr.systemd.units import NOTIFY_RELOAD, OLDEST, Place, units
from tests.helpers.load import FLOOR, Load, Target
from tests.systemd.machine import PYTHON, Machine, enter_network

WORKER = "/srv/checkout/tests/e2e/programs/worker.py"
SYSUSERS = "/srv/checkout/contrib/systemd/sysusers.d/sockmgr.conf"
SERVICE = "shop.service"
_T = TypeVar("_T")


class Site:
    """A manager called shop: a service for each listener, of the same name, with an own directory.

    A service answers with what the file `version` in its directory says, and fails as `fault` does.
    """

    def __init__(
        self,
        machine: Machine,
        listen: Mapping[str, str],
        *,
        name: str = "shop",
        users: Mapping[str, str] | None = None,
        command: Sequence[str] = (PYTHON, WORKER),
        more: str = "",
    ) -> None:
        """Write the config; `more` are lines that each service has, too: an app without command."""
        self.machine, self.name = machine, name
        self.config = f"/etc/sockmgr/{name}.toml"
        lines = [f'name = "{name}"', "[listen]"]
        lines += [f'{listener} = "{address}"' for listener, address in listen.items()]
        for listener in listen:
            directory = self.directory(listener)
            directory.mkdir(parents=True)
            lines += [
                f"[service.{listener}]", "workers = 2",
                f'listen = ["{listener}"]', f'cwd = "{directory}"',
                *([f"command = {json.dumps(command)}"] if command else []),
            ]  # fmt: skip
            if users:
                lines.append(f'user = "{users[listener]}"')
            lines.append(more.replace("SERVICE", listener))
        self.write("\n".join(lines))
        machine.run("systemd-sysusers", SYSUSERS)

    def write(self, text: str) -> None:
        """Have another config, for the next start or reload."""
        self.text = text
        self.machine.write(self.config, text)

    def install(self, *, notify_reload: bool = False) -> None:
        """Install the units and make the sockets listen; no manager runs yet."""
        place = Place(
            program=("/usr/local/bin/sockmgr",), config=self.config, notify_reload=notify_reload,
            version=NOTIFY_RELOAD if notify_reload else OLDEST,
        )  # fmt: skip
        files = units(parse(self.text.encode(), file=self.config), place)
        for name, text in files.items():
            self.machine.write(f"/etc/systemd/system/{name}", text)
        self.machine.systemctl("daemon-reload")
        sockets = [name for name in files if name.endswith(".socket")]
        self.machine.systemctl("start", *sockets)

    def start(self) -> None:
        """Start the manager; return when it serves."""
        self.machine.systemctl("start", f"{self.name}.service")

    def drop_in(self, text: str) -> None:
        """Change the service."""
        self.machine.write(f"/etc/systemd/system/{self.name}.service.d/test.conf", text)
        self.machine.systemctl("daemon-reload")

    def directory(self, service: str) -> Path:
        """Return the directory of the workers of a service, inside and outside."""
        return self.machine.shared / self.name / service

    def deploy(self, version: str, *, service: str = "http", fault: str = "none") -> None:
        """Put a version in place for the next reload."""
        (self.directory(service) / "version").write_text(version)
        (self.directory(service) / "fault").write_text(fault)

    def get(self, port: int = 8000, *, timeout: float = 20.0) -> dict[str, Any]:
        """Make one request; return the answer: the worker's `version` and `pid`."""

        def ask() -> dict[str, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
            try:
                connection.request("GET", "/")
                found: dict[str, Any] = json.loads(connection.getresponse().read())
                return found
            finally:
                connection.close()

        return self.inside(ask)

    def inside(self, ask: Callable[[], _T]) -> _T:
        """Call a function in the network of the machine."""
        found: list[_T] = []
        failed: list[BaseException] = []

        def main() -> None:
            try:
                self.machine.enter_network()
                found.append(ask())
            except BaseException as error:  # handed to the thread that asks
                failed.append(error)

        thread = threading.Thread(target=main, name="inside")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    def load(self, *modes: str, port: int = 8000) -> Load:
        """Return load from inside, for a `with` block."""
        return LoadInside(self.machine.pid, Target.at_url(f"http://127.0.0.1:{port}"), modes)

    def status(self) -> dict[str, Any]:
        """Ask the manager, as root does."""
        done = self.machine.run("sockmgr", "status", "--json", "-c", self.config)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def workers(self, service: str = "http") -> dict[int, str]:
        """Return the state of each worker of a service by its pid."""
        found = self.status()["services"][service]["workers"]
        return {worker["pid"]: worker["state"] for worker in found}

    @property
    def journal(self) -> str:
        """What the service has said."""
        return self.machine.journal(f"{self.name}.service")

    @property
    def main_pid(self) -> int:
        """The manager's pid, in the machine; 0 if there is none."""
        return int(self.machine.property(f"{self.name}.service", "MainPID"))


class LoadInside(Load):
    """Load from the network in which the process `pid` is."""

    def __init__(
        self, pid: int, target: Target, modes: Sequence[str], *, floor: int = FLOOR
    ) -> None:
        super().__init__(target, modes, floor=floor)
        self._pid = pid

    def _main(self) -> None:
        enter_network(self._pid)
        super()._main()
