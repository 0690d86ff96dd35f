"""A container that no engine made, for tests: a manager is its PID 1, with the rights that it has.

Owns every process and mount of it, and leaves none behind; inside.sh lays it out. Needs root.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sockmgr.kernel.procfs import children, threads
from tests.e2e.apps import ROOT
from tests.e2e.harness import wait_for
from tests.helpers.load import Load, Target
from tests.systemd.site import LoadInside

INSIDE = Path(__file__).with_name("inside.sh")
WORKER = ROOT / "tests" / "e2e" / "programs" / "worker.py"
REFUSE = ROOT / "tests" / "helpers" / "refuse.py"
PYTHON = "/srv/base/bin/python3"
USER = 10001
_NO_CAPABILITIES = "--bounding-set=-all --inh-caps=-all --ambient-caps=-all"
# What Docker gives root.
_CAPABILITIES = (
    "chown dac_override fsetid fowner mknod net_raw setgid setuid setfcap setpcap net_bind_service "
    "sys_chroot kill audit_write"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a container may: options of setpriv(1), and the directories that can be written to.

    Its files are those of the image `rootfs`, or our own; `place` is where its config is.
    """

    rights: str = f"--reuid {USER} --regid {USER} --clear-groups {_NO_CAPABILITIES}"
    writable: str = ""
    rootfs: str = ""
    place: str = "/srv/shop"
    python: str = PYTHON
    program: tuple[str, ...] = (PYTHON, "-m", "sockmgr")


# Its files are read-only, and so is /tmp; nobody has a name, and there is no /run.
STRICT = Kind()
# What Kubernetes mounts as an emptyDir may be written to by anybody.
EMPTY_DIRS = Kind(writable="/tmp:0777 /run/sockmgr:0777")
ROOT_OF_DOCKER = Kind(
    rights=f"--bounding-set=-all,+{_CAPABILITIES.replace(' ', ',+')} --inh-caps=-all",
    writable="/tmp:1777 /run:0755",
)


class Box:
    """One container. It runs from the beginning of a `with` block, and is killed at its end."""

    def __init__(self, directory: Path, config: str, kind: Kind = STRICT) -> None:
        """Write the config; `directory` is that of the config inside, with worker.py in it."""
        self.directory, self._kind = directory, kind
        directory.mkdir(mode=0o755, exist_ok=True)
        directory.chmod(0o755)
        shutil.copy(WORKER, directory)
        shutil.copy(REFUSE, directory)
        self.deploy("1")
        self.configure(config)
        self._log = directory.with_name(f"{directory.name}.log")
        self.pid = 0

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._parent = subprocess.Popen(
                [
                    "setpriv", "--pdeathsig", "KILL",
                    "unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc",
                    "--net", "--cgroup", "sh", INSIDE, *self._refusing, *self._kind.program, "run",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "STATE": str(self.directory),
                    "BASE": sys.base_prefix, "SITE": sysconfig.get_path("platlib"),
                    "CHECKOUT": str(ROOT), "WRITABLE": self._kind.writable,
                    "RIGHTS": self._kind.rights, "ROOTFS": self._kind.rootfs,
                    "PLACE": self._kind.place,
                },
            )  # fmt: skip
        try:
            self.pid = wait_for(self._first, "the first process")
            wait_for(self._serves, f"the services to serve; {self._log}:\n{self.log}")
        except BaseException:
            self._end()
            print(self.log, file=sys.stderr)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end()
        if kind:
            print(self.log, file=sys.stderr)

    def configure(self, text: str) -> None:
        """Have this config for the next start or reload."""
        (self.directory / "sockmgr.toml").write_text(text)

    def deploy(self, version: str, fault: str = "none") -> None:
        """Put a version in place for the next reload."""
        (self.directory / "version").write_text(version)
        (self.directory / "fault").write_text(fault)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, with the rights of the container: as `docker exec` does."""
        enter = ["nsenter", "--all", "--target", str(self.pid), "sh", "-c"]
        there = ['cd "$0" && exec "$@"', self._kind.place]
        rights = ["setpriv", "--no-new-privs", *self._kind.rights.split(), "--"]
        ours = {"LD_LIBRARY_PATH": "/srv/base/lib", "PYTHONPATH": "/srv/checkout:/srv/site"}
        return subprocess.run(
            [*enter, *there, *rights, *self._refusing, *argv],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1", **({} if self._kind.rootfs else ours),
            },
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @property
    def _refusing(self) -> Sequence[str]:
        return [self._kind.python, f"{self._kind.place}/refuse.py", "container"]

    def sockmgr(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb inside."""
        return self.run(*self._kind.program, *words)

    def terminate(self) -> None:
        """Tell it to stop, as an engine does."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Return its exit status when it has ended."""
        return self._parent.wait(30)

    def load(self, *modes: str) -> Load:
        """Return load from its network, for a `with` block."""
        return LoadInside(self.pid, Target.at_url("http://127.0.0.1:8000"), modes)

    @property
    def log(self) -> str:
        """What the manager and its workers wrote."""
        return self._log.read_text(errors="replace")

    def lines(self, text: str) -> list[str]:
        """Return the lines of the log that have this text."""
        return [line for line in self.log.splitlines() if text in line]

    @property
    def pid_inside(self) -> int:
        """The pid of the manager as the container has it."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"^NSpid:.*\t(\d+)$", status, re.MULTILINE)[0])

    def children(self, name: str) -> list[int]:
        """Return the children of the manager that have this name, also those that have ended."""
        found = [int(pid) for pid in children(self.pid, threads(self.pid))]
        return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text().strip() == name]

    def workers(self) -> list[int]:
        """Return the pids of the workers, as they are outside."""
        scripts = [
            (pid, Path(f"/proc/{pid}/cmdline").read_bytes()) for pid in self.children("python3")
        ]
        return [pid for pid, argv in scripts if b"worker.py" in argv]

    # --- birth and end ---------------------------------------------------------------------------

    def _first(self) -> int:
        children = Path(f"/proc/{self._parent.pid}/task/{self._parent.pid}/children")
        found = children.read_text().split() if children.exists() else []
        if not found and self._parent.poll() is not None:
            raise AssertionError(f"it ended with {self._parent.returncode}:\n{self.log}")
        return int(found[0]) if found else 0

    def _serves(self) -> bool:
        if self._parent.poll() is not None:
            raise AssertionError(f"it ended with {self._parent.returncode}:\n{self.log}")
        return self.sockmgr("health", "--ready").returncode == 0

    def _end(self) -> None:
        # The kernel ends all that is in it when its first process ends.
        if self._parent.poll() is None:
            os.kill(self.pid or self._parent.pid, signal.SIGKILL)
        self._parent.wait()
