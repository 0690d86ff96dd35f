"""Have system calls of a manager fail at random, while the file that FAILING_CALLS names is there.

`FAILING_CALLS=/some/file` in the environment of a process that runs `sockmgr run`; the file has a
seed and a probability. Each failure is a line in `/some/file.log`. Workers inherit this, and are
spared.
EINTR is left out: Python itself repeats a call that is interrupted (PEP 475).
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

_exists, _write, _open = os.path.exists, os.write, os.open

FULL = (errno.EMFILE, errno.ENFILE)
MEMORY = (errno.ENOMEM,)
ROOM = (errno.ENOSPC,)
CALLS: dict[str, tuple[int, ...]] = {
    "posix_spawn": (errno.EAGAIN, errno.ENOMEM), "pidfd_open": (*FULL, *MEMORY),
    "memfd_create": (*FULL, *MEMORY), "open": (*FULL, *MEMORY), "dup": FULL, "pipe": FULL,
    "pipe2": FULL, "pwrite": ROOM, "ftruncate": ROOM, "rename": ROOM, "mkdir": ROOM,
    "scandir": FULL, "listdir": FULL,
}  # fmt: skip
ATTACH = (26, 50, 51, 52)  # SO_ATTACH_FILTER and the like: other options take no memory
METHODS: dict[str, tuple[int, ...]] = {
    "__init__": (*FULL, errno.ENOBUFS), "dup": FULL, "accept": FULL,
    "send": (errno.EAGAIN, errno.ENOBUFS), "sendmsg": (errno.EAGAIN, errno.ENOBUFS),
    "setsockopt": MEMORY, "listen": (errno.EADDRINUSE,), "bind": (errno.ENOMEM,),
    "connect": (errno.EAGAIN,),
}  # fmt: skip


def _main(path: str) -> None:
    dice, log = random.Random(), f"{path}.log"
    busy = False

    def fails() -> bool:
        nonlocal busy
        if busy or not _exists(path):
            return False
        busy = True
        try:
            with open(path) as file:  # noqa: PTH123 - before anything else is imported
                seed, _, probability = file.read().partition(" ")
            if seed != getattr(dice, "was", ""):
                dice.seed(seed)
                dice.was = seed  # type: ignore[attr-defined]
            return dice.random() < float(probability or 0)
        finally:
            busy = False

    def tell(name: str, number: int) -> None:
        frames = [f for f in traceback.extract_stack() if "/sockmgr/" in f.filename][-4:]
        where = " ".join(f"{f.filename.rpartition('/sockmgr/')[2]}:{f.lineno}" for f in frames)
        fd = _open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _write(fd, f"{name} {errno.errorcode[number]} {where}\n".encode())
        os.close(fd)

    def failing(name: str, call: Callable[..., Any], numbers: tuple[int, ...]) -> Any:
        @functools.wraps(call)
        def failing_call(*arguments: Any, **named: Any) -> Any:
            if not (name == "socket.setsockopt" and arguments[2] not in ATTACH) and fails():
                number = dice.choice(numbers)
                tell(name, number)
                raise OSError(number, os.strerror(number))
            return call(*arguments, **named)

        return failing_call

    for name, numbers in CALLS.items():
        setattr(os, name, failing(name, getattr(os, name), numbers))
    for name, numbers in METHODS.items():
        setattr(
            socket.socket, name, failing(f"socket.{name}", getattr(socket.socket, name), numbers)
        )
    socket.socketpair = failing("socketpair", socket.socketpair, FULL)
    fcntl.fcntl = failing("fcntl", fcntl.fcntl, FULL)
    signal.pidfd_send_signal = failing(
        "pidfd_send_signal", signal.pidfd_send_signal, (errno.EPERM,)
    )


if (
    "run" in sys.orig_argv
    and "--check-state" not in sys.orig_argv
    and "FAILING_CALLS" in os.environ
):
    _main(os.environ["FAILING_CALLS"])
