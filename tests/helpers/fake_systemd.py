"""A NOTIFY_SOCKET that records what it is told, in order, as PID 1 would read it."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.harness import wait_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One datagram: its fields, who the kernel says sent it, its descriptors, when it was read."""

    fields: Mapping[str, str]
    pid: int
    fds: int
    at: float

    def __contains__(self, field: str) -> bool:
        return field in self.fields

    @property
    def status(self) -> str:
        """The STATUS of this message, if it has one."""
        return self.fields.get("STATUS", "")


class FakeSystemd:
    """Reads from a thread of its own, so that no manager ever waits for a test."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "systemd.notify"
        self.told: list[Told] = []
        self._held: list[int] | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._thread = threading.Thread(target=self._read_on)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(*self.told, sep="\n")
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()
        self.let_go()

    def hold(self) -> None:
        """Keep the descriptors that come from now on open."""
        self._held = []

    def let_go(self) -> None:
        """Close the descriptors that came."""
        held, self._held = self._held, None
        for fd in held or ():
            os.close(fd)

    @property
    def env(self) -> dict[str, str]:
        """What systemd adds to the environment of a service."""
        return {"NOTIFY_SOCKET": str(self.path)}

    @property
    def statuses(self) -> list[str]:
        """Every STATUS so far."""
        return [told.status for told in self.told if "STATUS" in told]

    @property
    def status(self) -> str:
        """The STATUS that `systemctl status` would show now."""
        return (self.statuses or [""])[-1]

    def having(self, field: str) -> list[Told]:
        """Return the messages with this field, in order."""
        return [told for told in self.told if field in told]

    def wait(self, field: str, count: int = 1) -> Told:
        """Wait for so many messages with this field; return the last of them."""
        found = wait_for(
            lambda: self.having(field)[count - 1 :], f"{count} times {field} in {self.told}",
            timeout=15,
        )  # fmt: skip
        return found[0]

    def wait_status(self, shows: Callable[[str], bool] | str, *, after: int = 0) -> str:
        """Wait for a status, but for the first so many, that is or shows this; return it."""
        right = shows if callable(shows) else (lambda text: text == shows)
        return wait_for(
            lambda: next((status for status in self.statuses[after:] if right(status)), ""),
            f"the status {shows} in {self.told}", timeout=15,
        )  # fmt: skip

    def _read_on(self) -> None:
        while True:
            data, fds, pid = self._receive()
            if not data:
                return
            fields = dict(line.split("=", 1) for line in data.decode().splitlines())
            self.told.append(Told(fields=fields, pid=pid, fds=len(fds), at=time.monotonic()))
            if (held := self._held) is not None:
                held += fds
                continue
            for fd in fds:  # now that it is read, and not before: sd_notify_barrier(3)
                os.close(fd)

    def _receive(self) -> tuple[bytes, list[int], int]:
        room = socket.CMSG_SPACE(8 * 4) + socket.CMSG_SPACE(12)
        data, extra, _, _ = self._socket.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC)
        fds: list[int] = []
        pid = 0
        for _, kind, payload in extra:
            if kind == socket.SCM_RIGHTS:
                fds += struct.unpack(f"{len(payload) // 4}i", payload)
            else:
                (pid, _, _) = struct.unpack("3i", payload)
        return data, fds, pid
