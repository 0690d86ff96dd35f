"""A process that tries to harm a manager of another user, and says what became of each attempt.

It runs as a program, of the standard library alone: as a stranger (`intruder.py UID CONTROL PID...`
becomes that user and prints it), or as a worker (`intruder.py serve CONTROL LOOT`), which writes it
into the directory LOOT and then serves its listener.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

PTRACE_SEIZE, PIDFD_GETFD = 0x4206, 438  # ptrace(2), pidfd_getfd(2)
libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(os.fspath(path))


def read(path: Path) -> None:
    path.read_bytes()


def descriptor_of(pid: int) -> None:
    checked(libc.syscall(PIDFD_GETFD, os.pidfd_open(pid), 0, 0))


def trace(pid: int) -> None:
    checked(libc.ptrace(PTRACE_SEIZE, pid, 0, 0))


def spare(pid: int) -> None:
    Path(f"/proc/{pid}/oom_score_adj").write_text("1000")


def become_root(_: Path) -> None:
    os.setresuid(0, 0, 0)


ON_PATHS: dict[str, Callable[[Path], object]] = {
    "connect to the control socket": connect,
    "connect to the keeper": lambda control: connect(control.with_suffix(".keeper")),
    "read the state": lambda control: read(control.with_suffix(".state")),
    "write the state": lambda control: control.with_suffix(".state").write_bytes(b"x"),
    "put a state there": lambda control: control.with_suffix(".state.new").write_bytes(b"x"),
    "put a link there": lambda control: control.with_name("more.sock").symlink_to("/etc/shadow"),
    "list the directory": lambda control: list(control.parent.iterdir()),
    "remove the control socket": lambda control: control.unlink(),
    "change its mode": lambda control: control.chmod(0o666),
    "hold the lock of the next start": lambda control: os.open(
        control.with_name(f".{control.name}.lock"), os.O_RDWR | os.O_CREAT
    ),
    "put metrics there": lambda control: control.with_suffix(".metrics").mkdir(),
    "become root": become_root,
}
ON_PROCESSES: dict[str, Callable[[int], object]] = {
    "read the environment": lambda pid: read(Path(f"/proc/{pid}/environ")),
    "read the memory": lambda pid: os.open(f"/proc/{pid}/mem", os.O_RDONLY),
    "read the maps": lambda pid: read(Path(f"/proc/{pid}/maps")),
    "list the descriptors": lambda pid: list(Path(f"/proc/{pid}/fd").iterdir()),
    "copy a descriptor": descriptor_of,
    "trace it": trace,
    "kill it": lambda pid: os.kill(pid, signal.SIGKILL),
    "stop it": lambda pid: os.kill(pid, signal.SIGSTOP),
    "have it killed for want of memory": spare,
    "take its limits": lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0)),
}


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except PermissionError:
        return "refused"
    except OSError as error:
        return type(error).__name__
    return "done"


def attempts(control: Path, pids: list[int]) -> dict[str, str]:
    found = {name: outcome(partial(do, control)) for name, do in ON_PATHS.items()}
    for pid in pids:
        found |= {f"{name} ({pid})": outcome(partial(do, pid)) for name, do in ON_PROCESSES.items()}
    return found


def serve(control: Path, loot: Path) -> None:
    pids = [os.getppid()]
    given = [fd for fd in range(256) if os.path.exists(f"/proc/self/fd/{fd}")]  # noqa: PTH110
    found: dict[str, object] = {**attempts(control, pids), "descriptors": given}
    found["join its group"] = outcome(lambda: os.setpgid(0, os.getpgid(pids[0])))
    status = Path("/proc/self/status").read_text().splitlines()
    found["rights"] = [line.split()[1] for line in status if line.startswith(("CapPrm", "CapEff"))]
    new = loot / "new"
    new.write_text(json.dumps(found))
    new.rename(loot / "found")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with socket.socket(fileno=3) as listener:
        while True:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        os.setgroups([])
        os.setresgid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
        os.setresuid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
        print(json.dumps(attempts(Path(sys.argv[2]), list(map(int, sys.argv[3:])))))
