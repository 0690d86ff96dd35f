"""A small machine with a real systemd, for tests: booted in its own namespaces over our files.

Owns every process, mount, cgroup and file of it, and leaves none behind; boot.sh lays it out.
Needs root. The directory `shared` is the same inside and outside, and readable for all.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
BOOT = Path(__file__).with_name("boot.sh")
PYTHON = "/srv/base/bin/python3"  # inside
BOOT_TIMEOUT = 30.0
# A directory with the unpacked packages of another systemd and of what it needs that is newer
# than ours, all below usr/: that one is booted.
LAYER = "SOCKMGR_TEST_SYSTEMD"
_PREFIX = "sockmgr-machine-"
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_NEEDED = ("/usr/lib/systemd/systemd", "unshare", "nsenter", "setpriv", "systemctl")


def why_impossible() -> str:
    """Return why no machine can be booted here, or ""."""
    if os.geteuid() != 0:
        return "only root may make namespaces"
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if _cgroup2() is None:
        return "there is no cgroup2 file system"
    tried = subprocess.run(
        [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return tried.stderr.strip()


def enter_network(pid: int) -> None:
    """Have the calling thread make its sockets where this process does."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def judging(*argv: str) -> Sequence[str]:
    """Return the command that runs `argv`, a tool of the systemd that is booted, without a machine.

    Needs root if that is not our own.
    """
    if not (layer := os.environ.get(LAYER)):
        return argv
    script = 'mount -t overlay -o "lowerdir=$0/usr:/usr" overlay /usr && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, layer, *argv]


class Machine:
    """One booted systemd: PID 1 of its own namespaces. Leaving it ends all that is in it."""

    boot = BOOT

    def __init__(self, layer: str | None = None) -> None:
        """Take the systemd of this layer, "" being our own; by default what LAYER says."""
        _sweep()
        self._other = os.environ.get(LAYER, "") if layer is None else layer
        self.shared = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/tmp"))
        self.shared.chmod(0o755)
        self._console = b""
        self.pid = 0

    def __enter__(self) -> Self:
        try:
            self._priority()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    # --- what tests do with it -------------------------------------------------------------------

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; with `check`, it must succeed."""
        done = subprocess.run(
            self.command(*argv), env=_environment(), capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def enter_network(self) -> None:
        """Have the calling thread, and only it, make its sockets inside from now on."""
        enter_network(self.pid)

    def command(self, *argv: str) -> Sequence[str]:
        """Return the command that runs `argv` inside."""
        return ["nsenter", "--all", "--target", str(self.pid), "--wd", "--", *argv]

    def systemctl(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run systemctl inside."""
        return self.run("systemctl", *argv, check=check)

    @functools.cached_property
    def version(self) -> int:
        """The version of the systemd that runs here, for tests that need a later one."""
        told = self.systemctl("show", "--value", "--property=Version").stdout
        return int(re.split(r"\D", told, maxsplit=1)[0])

    def property(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).stdout.strip()

    def journal(self, unit: str) -> str:
        """Return what the journal has of a unit."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "-q", "-o", "cat", f"--unit={unit}").stdout

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine's own, and its directory."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1"'
        subprocess.run(
            self.command("sh", "-c", script, "sh", path), env=_environment(), input=text,
            text=True, check=True, timeout=30,
        )  # fmt: skip

    # --- birth and end ---------------------------------------------------------------------------

    def _priority(self) -> None:
        found = _cgroup2()
        assert found is not None, "there is no cgroup2 file system"
        self._cgroup = found / self.shared.name
        self._cgroup.mkdir()
        self._master, terminal = os.openpty()
        self._reader = threading.Thread(target=self._read_console, name="console", daemon=True)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.bind(str(self.shared / "notify"))
                self._parent = subprocess.Popen(
                    [*_UNSHARE, "sh", str(self.boot)], stdin=subprocess.DEVNULL, stdout=terminal,
                    stderr=terminal, env=os.environ | self._layout(os.ttyname(terminal)),
                )  # fmt: skip
                self._reader.start()
                self._await_ready(notify)
        finally:
            os.close(terminal)

    def _layout(self, terminal: str) -> Mapping[str, str]:
        return {
            "STATE": str(self.shared),
            "CGROUP": str(self._cgroup),
            "TTY": terminal,
            "BASE": sys.base_prefix,
            "SITE": sysconfig.get_path("platlib"),
            "CHECKOUT": str(ROOT),
            "LAYER": self._other,
        }

    def _await_ready(self, notify: socket.socket) -> None:
        """Wait for PID 1's own READY=1 (systemd(1), "container interface")."""
        deadline = time.monotonic() + BOOT_TIMEOUT
        pidfd = os.pidfd_open(self._parent.pid)
        try:
            while True:
                left = max(0.0, deadline - time.monotonic())
                readable, _, _ = select.select([notify.fileno(), pidfd], [], [], left)
                if notify.fileno() not in readable:
                    how = "it ended" if readable else f"not within {BOOT_TIMEOUT:g} s"
                    raise AssertionError(f"systemd did not boot: {how}\n{self._console.decode()}")
                if b"READY=1" in notify.recv(65536).split(b"\n"):
                    break
        finally:
            os.close(pidfd)
        children = Path(f"/proc/{self._parent.pid}/task/{self._parent.pid}/children")
        self.pid = int(children.read_text())

    def _read_console(self) -> None:
        """Keep what is written to the console: a terminal that nobody reads blocks its writers."""
        with contextlib.suppress(OSError):  # EIO: nobody has it open any more
            while piece := os.read(self._master, 65536):
                self._console = (self._console + piece)[-65536:]

    def _end(self) -> None:
        if hasattr(self, "_parent"):
            if self.pid:
                # The kernel ends all that is in the namespace before PID 1 is gone; unshare
                # waits for it.
                os.kill(self.pid, signal.SIGKILL)
            else:
                self._parent.kill()
            self._parent.wait()
            self._reader.join()
        if hasattr(self, "_master"):
            os.close(self._master)
        if hasattr(self, "_cgroup"):
            _remove(self._cgroup)
        shutil.rmtree(self.shared)


# --kill-child and --pdeathsig: if this process is killed, so is the machine.
_UNSHARE = [
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--net",
]  # fmt: skip


def _environment() -> Mapping[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "SYSTEMD_PAGER": "",
        "SYSTEMD_COLORS": "0",
    }


def _cgroup2() -> Path | None:
    """Return the directory of our own cgroup in the cgroup2 tree."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            own = Path("/proc/self/cgroup").read_text().partition("0::/")[2].splitlines()[0]
            return Path(point, own) if Path(point, own).exists() else Path(point)
    return None


def _sweep() -> None:
    """Remove what tests that were killed left: files and empty cgroups. All else died with them."""
    for parent in filter(None, (Path("/tmp"), _cgroup2())):
        for left in parent.glob(f"{_PREFIX}*"):
            owner = left.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdecimal() and not Path("/proc", owner).exists():
                if parent == Path("/tmp"):
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    _remove(left)


def _remove(cgroup: Path) -> None:
    """Remove a tree of cgroups; its processes are dead, but the kernel may not be done yet."""
    deadline = time.monotonic() + 10
    while cgroup.exists():
        for directory, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
        if cgroup.exists():
            assert time.monotonic() < deadline, f"{cgroup} is still in use"
            time.sleep(0.01)
