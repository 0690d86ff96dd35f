"""Read the memory of workers without ever waiting for them: a helper process does, and may hang.

What is read there is fetched by whatever the worker has mapped: a file system or a userfaultfd(2)
of its own need not answer, and the reader cannot be killed before they do. A thread that hangs so
would keep its process from ending; a helper process has nothing that anybody misses.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from sockmgr.errors import SpawnError
from sockmgr.kernel.process import Process
from sockmgr.kernel.procfs import start_time
from sockmgr.kernel.spawn import file_actions
from sockmgr.log import Log
from sockmgr.programs import read_memory

PATIENCE = 0.002  # seconds that one look waits for an answer; a later one takes what came since
HANGS_AFTER = 3.0  # without an answer
MOST_HUNG = 3  # helpers that are lost before no memory is read any more

log = Log("sockmgr")


class MemoryReader:
    """At most one helper, while anybody uses it; `read` starts it when it is needed first."""

    def __init__(self) -> None:
        self.started: set[int] = set()  # pids, for whoever reaps them
        self._users = 0
        self._sock: socket.socket | None = None
        self._process: Process | None = None
        self._is_up = self._is_direct = False
        self._asked: tuple[int, int, int] | None = None  # pid, address, size
        self._answer: bytes | None = None
        self._number = 0
        self._since = 0.0
        self._hung: list[tuple[int, int]] = []  # pid and start

    def use(self) -> None:
        """Say that somebody may read from now on."""
        self._users += 1

    def leave(self) -> None:
        """Say that this one reads no more; without anybody the helper ends."""
        self._users -= 1
        # A helper costs 7 MB, and no worker starts for most of a manager's life.
        if not self._users:
            self._close()

    def read(self, pid: int, address: int, size: int) -> bytes:
        """Return what is there, or nothing if that is not known yet, or never will be.

        Raises OSError if we may not look, or the process is gone.
        """
        if len(self._hung) >= MOST_HUNG or (pid, start_time(pid)) in self._hung:
            return b""
        # Opening is checked against our rights and never waits; only reading may.
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self._sock is None and not self._is_direct:
                self._start()
            if self._is_direct:
                return os.pread(fd, size, address)
            return self._ask((pid, address, size), fd)
        finally:
            os.close(fd)

    def _ask(self, what: tuple[int, int, int], fd: int) -> bytes:
        # Most answers come at once. What comes later is for the next look at the same memory.
        for wait in (0.0, PATIENCE):
            self._hear(wait)
            if self._asked == what and self._answer is not None:
                found, self._asked, self._answer = self._answer, None, None
                return found
            if self._is_up and (self._asked is None or self._answer is not None):
                self._send(what, fd)
        if self._asked and time.monotonic() > self._since + HANGS_AFTER:
            self._give_up(self._asked[0])
        return b""

    def _send(self, what: tuple[int, int, int], fd: int) -> None:
        assert self._sock  # noqa: S101 - it is up
        self._number += 1
        self._asked, self._answer, self._since = what, None, time.monotonic()
        # The number sets this answer apart from a late one to a question that was given up.
        request = read_memory.REQUEST.pack(self._number, *what[1:])
        with contextlib.suppress(OSError):  # it has been killed: then no answer comes
            socket.send_fds(self._sock, [request], [fd])

    def _hear(self, timeout: float) -> None:
        if self._sock is None:
            return
        watch = select.poll()
        watch.register(self._sock, select.POLLIN)
        if not watch.poll(timeout * 1000 if self._asked else 0):
            return
        try:
            data = self._sock.recv(1 << 20)
        except ConnectionResetError:  # it ended, and had not read everything
            data = b""
        if not data and not self._is_up:
            self._read_directly("it ended at once")
        elif not data:
            self._close()
        elif not self._is_up:
            self._is_up = data == read_memory.HELLO
        elif self._asked and read_memory.ANSWER.unpack_from(data)[0] == self._number:
            self._answer = data[read_memory.ANSWER.size :]

    def _give_up(self, pid: int) -> None:
        """The helper hangs: let go of it, and read no more of the memory of this process."""
        self._hung.append((pid, start_time(pid)))
        log.error(
            "memory of worker not read", pid=pid, silent=HANGS_AFTER,
            means='it is not seen to wait in poll(2) or select(2): use ready = "notify"',
        )  # fmt: skip
        if self._process:
            self._process.signal(signal.SIGKILL)
        self._close()

    def _start(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = [sys.executable, "-I", "-S", str(Path(read_memory.__file__))]
        with its:
            try:
                pid = os.posix_spawn(
                    program[0], program, {}, setsid=True,
                    file_actions=file_actions([its.fileno()], stdout=2),
                    setsigdef=signal.valid_signals(), setsigmask=(),
                )  # fmt: skip
                self.started.add(pid)
                self._process = Process(pid)
            except (FileNotFoundError, PermissionError) as error:
                ours.close()
                self._read_directly(str(error))
            except (OSError, SpawnError) as error:  # out of something: the next look tries again
                ours.close()
                raise OSError(str(error)) from error
            else:
                self._sock = ours

    def _read_directly(self, why: str) -> None:
        """Go on without a helper: its Python was removed, or is broken."""
        self._close()
        self._is_direct = True
        log.error("no helper to read memory", error=why,
                  means="a worker whose memory does not answer hangs the manager")  # fmt: skip

    def _close(self) -> None:
        if self._sock:
            self._sock.close()
        if self._process:
            self._process.close()
        self._sock = self._process = None
        self._asked = self._answer = None
        self._is_up = False
