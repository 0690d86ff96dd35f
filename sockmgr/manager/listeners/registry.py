"""The listeners that are open, by address. Opens all that are missing or none; owns them.

A listener is known by its address, so that a renamed one stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Address, Listen
from sockmgr.errors import ListenError, SockmgrError
from sockmgr.fleet.snapshot import ListenerSnapshot
from sockmgr.kernel import free_bind, private, queues
from sockmgr.kernel.open_files import OpenFiles
from sockmgr.kernel.sockets import describe, same_address
from sockmgr.log import Log
from sockmgr.manager.crash_points import Point, reached
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener

log = Log("sockmgr")


class Listeners:
    """All listeners of one manager; `on_shutdown` is told when a worker shut one down."""

    def __init__(self, on_shutdown: Callable[[Listener], None]) -> None:
        self._open: dict[Address, Listener] = {}
        self._waiting: dict[str, list[socket.socket]] = {}  # systemd's, for listeners to come
        self._on_shutdown = on_shutdown
        self.renewed: set[Address] = set()  # at which only workers to come will accept

    def at(self, address: Address) -> Listener:
        return self._open[address]

    @property
    def all(self) -> tuple[Listener, ...]:
        return tuple(self._open.values())

    def resume(
        self, listeners: Sequence[ListenerSnapshot], passed: Mapping[str, list[socket.socket]]
    ) -> None:
        """Own the sockets of a predecessor's listeners, under whatever names they came.

        One that it did not have waits for its listener: the config may have got both since.
        """
        # Sockets are found by inode: names may have changed, and a number may have a new queue.
        found = {queues.inode(sock): (name, sock) for name in passed for sock in passed[name]}
        for was in listeners:
            mine = [found.pop(inode) for inode in was.inodes]
            socks, late = [sock for _, sock in mine], self._take_late(was.listen, found)
            if was.ending and not late:
                listener = opening.replace(was, socks)
            else:
                listener = opening.resume(was, socks, late)
            if late and not listener.is_steered:
                listener.systemds.add(0)
                self.renewed.add(was.listen.address)
            else:
                names = [*(name for name, _ in mine), *(was.listen.name for _ in late)]
                listener.systemds.update(
                    n for n, name in enumerate(names) if name == was.listen.name
                )
            self._watch(listener)
            self._open[was.listen.address] = listener
            log.info("listener adopted", name=was.listen.name, address=listener.address)
        for name, sock in found.values():
            self._set_aside(name, sock)

    def _set_aside(self, name: str, sock: socket.socket) -> None:
        if "#" in name:
            sock.close()  # a queue of no listener
        else:
            os.set_blocking(sock.fileno(), True)  # as a socket is; nobody uses it yet
            self._waiting.setdefault(name, []).append(sock)

    def _take_late(
        self, listen: Listen, found: dict[int, tuple[str, socket.socket]]
    ) -> list[socket.socket]:
        """Take from `found` what systemd bound to the address of a listener that we have already.

        It could because we are of one user, or because it takes a unix path from whoever has it.
        """
        late = [
            number
            for number, (name, sock) in found.items()
            if name == listen.name and same_address(sock, listen.address)
        ]
        socks = [found.pop(number)[1] for number in late]
        for sock in socks:
            os.set_blocking(sock.fileno(), True)  # as a socket is; nobody uses it yet
        if socks:
            log.info("systemd has sockets for it now", name=listen.name, number=len(socks))
        return socks

    def be_last(self) -> None:
        """Know that systemd closes its sockets when the manager has ended."""
        for listener in self._open.values():
            listener.is_last = True

    def all_in(self, addresses: Set[Address]) -> bool:
        """Tell whether no other than these is open."""
        return self._open.keys() <= addresses

    def open(
        self,
        listens: Sequence[Listen],
        passed: dict[str, list[socket.socket]] | None = None,
        own: Mapping[str, int] | None = None,
    ) -> None:
        """Open what is not open yet, all or nothing; adopt what systemd passed by its name.

        What is open already gets the backlog, the mode and the owner that the config says now. Of
        those under a name the last may be a predecessor's `own`: so many. Raises ListenError;
        what was open before stays open, as it was.
        """
        opened: list[Address] = []
        before: list[tuple[Listener, Listen]] = []
        passed = passed or {}
        named = ", ".join(listen.name for listen in listens)
        try:
            for listen in listens:
                if listen.address not in self._open:
                    # Duplicates: what comes after may fail, and then they wait on.
                    waiting = [sock.dup() for sock in self._waiting.get(listen.name, ())]
                    socks = passed.pop(listen.name, waiting)
                    self._open[listen.address] = self._open_one(listen, socks, own or {})
                    opened.append(listen.address)
                    reached(Point.LISTENER_OPENED)
                # The listener may be refusing clients, since a reload removed it a moment ago.
                listener = self._open[listen.address]
                listener.admit()
                before.append((listener, listener.listen))
                listener.apply(listen)
            if passed:
                raise _nobody_named(passed, named)
        except SockmgrError:  # as if nothing had been asked: the running generation needs them
            for listener, listen in before:
                listener.apply(listen)
            for address in opened:
                self._close(address)
            raise
        for listen in listens:
            for sock in self._waiting.pop(listen.name, ()):
                sock.close()

    def conform(self, listens: Sequence[Listen]) -> None:
        """Set on open listeners what the config in force says of them, should a reload have failed.

        What a reload asked for is set before its rollouts, and has to be undone if they abort.
        """
        for listen in listens:
            if listener := self._open.get(listen.address):
                try:
                    listener.apply(listen)
                except ListenError as error:
                    log.warning("cannot be set as it was", name=listen.name, error=error)

    def close_unused(self, used: Collection[Address]) -> None:
        for address in self._open.keys() - set(used):
            self._close(address)

    def _open_one(
        self, listen: Listen, socks: list[socket.socket], own: Mapping[str, int]
    ) -> Listener:
        # A manager that is short of descriptors refuses here, where nothing has changed yet.
        OpenFiles.check()
        listener = opening.adopt(listen, socks) if socks else opening.bind(listen)
        listener.systemds.update(range(len(socks) - own.get(listen.name, 0)))
        self._watch(listener)
        log.info(EventKind.LISTENING, name=listen.name, address=listener.address,
                 cutover=listener.cutover)  # fmt: skip
        if listener.why_overlap:
            log.info(EventKind.CUT_OVERS_OVERLAP, name=listen.name, because=listener.why_overlap)
        if listen.address.traits.is_internet and free_bind.is_absent(listener.queues[0]):
            log.warning(
                "this host does not have the address", name=listen.name, address=listener.address,
                means="nobody can connect until it does; the other listeners are not affected",
            )  # fmt: skip
        if listen.address.traits.has_path and (flaw := _flaw(Path(listen.address.path))):
            log.warning("others can take the path", name=listen.name, because=flaw,
                        means="they could answer the clients in our place")  # fmt: skip
        if listener.systemds and not same_address(socks[0], listen.address):
            log.warning(EventKind.SYSTEMDS_SOCKET_HAS_ANOTHER_ADDRESS, config=str(listen.address))
        return listener

    def _watch(self, listener: Listener) -> None:
        asyncio.get_running_loop().add_reader(listener.watch_fd(), self._on_shutdown, listener)

    def _close(self, address: Address) -> None:
        listener = self._open.pop(address)
        asyncio.get_running_loop().remove_reader(listener.watch_fd())
        log.info(EventKind.LISTENER_CLOSED, name=listener.listen.name, waiting=listener.queued())
        listener.close()
        reached(Point.LISTENER_CLOSED)


def _flaw(path: Path) -> str:
    """Say who else may replace a socket at this path; in a sticky directory only its owner."""
    with contextlib.suppress(OSError):  # it was gone at once: the next look mends that
        return "" if path.parent.stat().st_mode & stat.S_ISVTX else private.flaw(path.parent)
    return ""


def _nobody_named(passed: dict[str, list[socket.socket]], named: str) -> ListenError:
    unknown = ", ".join(f"{name} ({describe(socks[0])})" for name, socks in passed.items())
    for sock in (sock for socks in passed.values() for sock in socks):
        sock.close()
    return ListenError(
        f"systemd passed a socket that no listener is named after: {unknown}",
        means=f"nothing was started; the config names {named or 'no listener'}",
        do="make FileDescriptorName= in the .socket unit and the name under [listen] the same",
    )
