"""Whether new connections may begin at a listener, whose queues and path this borrows."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from sockmgr.config.spec import OnStop
from sockmgr.kernel.steering.admission import admit_handshakes, refuse_handshakes, reject_handshakes
from sockmgr.kernel.unix_name import UnixName
from sockmgr.log import Log

_LOCKED = "its socket takes no filter: a worker has locked it, or the kernel lets only root set one"

_log = Log("sockmgr.listener")


class Admission:
    """What keeps new clients away from one listener; those who wait in its queues stay there."""

    def __init__(self, name: str, path: UnixName | None) -> None:
        """Keep clients from `path`, too, the one of a unix socket that we bound ourselves."""
        self.is_refusing = False
        self._name, self.path = name, path

    def pause(self, queues: Iterable[socket.socket]) -> None:
        """Let nobody come for now. Clients of these TCP queues get no answer, and try again."""
        if self.is_refusing:
            return
        self.is_refusing = True
        # A SYN is dropped, not refused: its client tries again, when a reload may have admitted it.
        for queue in queues:
            try:
                refuse_handshakes(queue)
            except PermissionError:
                _log.warning(
                    "clients come until it is closed", listener=self._name, because=_LOCKED
                )
        self._take_path_away()

    def resume(self, queues: Iterable[socket.socket]) -> None:
        """Undo pause()."""
        if not self.is_refusing:
            return
        self.is_refusing = False
        for queue in queues:
            try:
                admit_handshakes(queue)
            except PermissionError:
                _log.error("clients may not be able to come", listener=self._name, because=_LOCKED,
                           do="give the listener another port")  # fmt: skip
        if self.path is not None:
            self.path.restore()  # or the next look at the listener finds that it is not there

    def end(self, queues: Iterable[socket.socket], on_stop: OnStop) -> None:
        """Let nobody come any more. Who tries is refused at once, as if no process listened.

        With DROP it is as in a pause(), for those who are to meet the next manager.
        """
        if on_stop is OnStop.DROP:
            self.pause(queues)
            return
        self.is_refusing = True
        for queue in queues:
            try:
                reject_handshakes(queue)
            except OSError as error:  # before Linux 5.7, without CAP_NET_RAW
                refuse_handshakes(queue)
                _log.debug("clients are not answered", listener=self._name, because=error.strerror)
        self._take_path_away()

    # A unix socket has no handshakes to refuse: nobody finds it without its path.
    def _take_path_away(self) -> None:
        if self.path is not None:
            self.path.take_away()
