"""The fd store of our unit: systemd holds descriptors there until the unit has ended for good.

It gives them back to the next manager, beside the sockets of the unit (passed.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sockmgr.api.records import EventKind
from sockmgr.log import Log
from sockmgr.systemd.notify_socket import Channel

log = Log("sockmgr")


class FdStore:
    """What we have given systemd to hold. It never answers, so we count: sd_pid_notify_with_fds(3).

    Whatever exceeds the limit it would drop in silence, so that is not even sent.
    """

    def __init__(self, channel: Channel, limit: int | None) -> None:
        """Know of a `limit` of descriptors (FileDescriptorStoreMax=), or of none."""
        self._channel, self.limit = channel, limit
        self._held: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def inherit(self, names: Mapping[str, Sequence[int]]) -> None:
        """Know that these are held already, since they came from the store."""
        self._held = {name: len(fds) for name, fds in names.items()}

    def keep(self, name: str, fds: Sequence[int]) -> bool:
        """Have duplicates of `fds` held under `name`, in place of what is held there.

        False if they could not be sent; what there is no room for is counted, and not tried again.
        """
        wanted = sum(self._held.values()) - self._held.get(name, 0) + len(fds)
        if self.limit is not None and wanted > self.limit:
            self._leave_out(name, fds)
            return True
        # A message that removes does nothing else: of one that also stores, fds would be closed.
        self.forget(name)
        # Without FDPOLL=0 systemd would drop what hangs up, and nobody would hear of a worker that
        # died.
        if self._channel.send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fds):
            self._held[name] = len(fds)
            self._left_out.pop(name, None)
            return True
        return False

    def forget(self, name: str) -> None:
        """Have nothing held under `name`."""
        self._left_out.pop(name, None)
        if self._held.pop(name, None) is not None:
            self._channel.send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    @property
    def held(self) -> Mapping[str, int]:
        """How many descriptors are held under each name."""
        return self._held

    @property
    def full(self) -> bool:
        """Whether something was to be kept for which there was no room."""
        return bool(self._left_out)

    @property
    def flaw(self) -> str:
        """What the next manager would miss, or nothing."""
        if not self._left_out:
            return ""
        wanted = sum(self._held.values()) + sum(self._left_out.values())
        return f"fd store full: {wanted} of {self.limit} descriptors, raise FileDescriptorStoreMax="

    def _leave_out(self, name: str, fds: Sequence[int]) -> None:
        self.forget(name)  # what is held there is out of date
        known = self.full
        self._left_out[name] = len(fds)
        if not known:
            log.error(EventKind.NEXT_MANAGER_WOULD_MISS_SOMETHING, name=name, because=self.flaw)
