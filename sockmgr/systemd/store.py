"""The fd store of our unit: systemd holds descriptors there until the unit has ended for good.

It gives them back to the next manager, beside the sockets of the unit (passed.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sockmgr.api.records import EventKind
from sockmgr.log import Log
from sockmgr.systemd.protocol import SystemdSocket

log = Log("sockmgr")


class FdStore:
    """The descriptors that we gave to systemd to hold: sd_pid_notify_with_fds(3).

    systemd answers nothing, so they are counted here; and it drops in silence what exceeds its
    limit, so that is not sent.
    """

    def __init__(self, socket: SystemdSocket, limit: int | None) -> None:
        """`limit` is FileDescriptorStoreMax=, None if it is not known."""
        self._socket, self.limit = socket, limit
        self.held: dict[str, int] = {}  # how many descriptors, by name
        self._left_out: dict[str, int] = {}

    def inherit(self, names: Mapping[str, Sequence[int]]) -> None:
        """Count the descriptors that the store passed to this manager: it still holds them."""
        self.held = {name: len(fds) for name, fds in names.items()}

    def keep(self, name: str, fds: Sequence[int]) -> bool:
        """Have duplicates of `fds` held under `name`, in place of what is held there.

        Return False if they could not be sent. Descriptors for which there is no room are counted
        as left out, and the answer is True: to send them again would not help.
        """
        wanted = sum(self.held.values()) - self.held.get(name, 0) + len(fds)
        if self.limit is not None and wanted > self.limit:
            self._leave_out(name, fds)
            return True
        # In a message of its own: systemd closes the descriptors of one with FDSTOREREMOVE=1.
        self.forget(name)
        # Without FDPOLL=0 systemd drops a descriptor that hangs up, such as the pidfd of a worker
        # that died, and the next manager would not learn of the death.
        if self._socket.send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fds):
            self.held[name] = len(fds)
            self._left_out.pop(name, None)
            return True
        return False

    def forget(self, name: str) -> None:
        """Have nothing held under `name`."""
        self._left_out.pop(name, None)
        if self.held.pop(name, None) is not None:
            self._socket.send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    @property
    def full(self) -> bool:
        """Whether descriptors were left out because there was no room."""
        return bool(self._left_out)

    @property
    def flaw(self) -> str:
        """How many descriptors the next manager would miss, in words, or ""."""
        if not self._left_out:
            return ""
        wanted = sum(self.held.values()) + sum(self._left_out.values())
        return f"fd store full: {wanted} of {self.limit} descriptors, raise FileDescriptorStoreMax="

    def _leave_out(self, name: str, fds: Sequence[int]) -> None:
        self.forget(name)  # what is held under it is out of date
        known = self.full
        self._left_out[name] = len(fds)
        if not known:
            log.error(EventKind.NEXT_MANAGER_WOULD_MISS_SOMETHING, name=name, because=self.flaw)
