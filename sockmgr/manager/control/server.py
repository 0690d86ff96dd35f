"""The manager's side of the control socket: a bounded Varlink server on one unix socket.

Owns the socket, its clients and the tasks that perform what they ask; decides nothing. No client
can block the event loop, make a buffer grow or end the manager, and what a client has begun goes on
when it hangs up. https://varlink.org has the protocol.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

from msgspec.structs import asdict

from sockmgr import __version__
from sockmgr.api import varlink, wire
from sockmgr.api.records import EventKind
from sockmgr.api.types import JournalPlace, Progress
from sockmgr.config.manager_keys import Control
from sockmgr.errors import ControlError, SockmgrError
from sockmgr.kernel.accounts import user_name
from sockmgr.kernel.open_files import OpenFiles
from sockmgr.kernel.unix_node import credentials, groups
from sockmgr.launch.access import Access, resolve
from sockmgr.log import Log
from sockmgr.manager.asker import ASKER, name_of
from sockmgr.manager.control.claim import BACKLOG, Claim
from sockmgr.manager.control.connection import ControlConnection, Dropped, Limits, dismiss
from sockmgr.manager.logs.events import EventFollower
from sockmgr.manager.logs.ring import Follower

log = Log("sockmgr.control")

_INTERFACES = (varlink.SERVICE, varlink.INTERFACE)
_SPARE_FILES = 4  # descriptors kept free of clients, for performing what they ask

_Method = varlink.Method[Any, Any]
_Found = Follower | EventFollower | JournalPlace


class ControlServer:
    def __init__(self, path: Path, handler: object, *, limits: Limits | None = None) -> None:
        """Have `handler` do what is asked: by the methods that `varlink.METHODS` names.

        Each of them may raise SockmgrError.
        """
        self._path = path
        self._handler = handler
        self._control, self._access = Control(), Access()
        self._limits = limits or Limits()
        self._claim: Claim | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._clients: dict[asyncio.Task[None], ControlConnection] = {}
        self._operations: set[asyncio.Task[varlink.Answer]] = set()
        self._followers = 0
        self._crowded = False

    async def open(self, found: int | None = None) -> None:
        """Take the path and listen there; raise ControlError if another manager has it.

        With `found`, own that descriptor: the listening socket that hand_over() kept.
        """
        self._claim = Claim(self._path) if found is None else Claim.resume(self._path, found)
        self._listen()

    def admit(self, control: Control) -> None:
        """Let those in whom `control` names; it counts from the next call of each client on."""
        if control != self._control:
            self._control = control
            self._share()

    def _share(self) -> None:
        try:
            self._access = access = resolve(self._control)
            if self._claim:
                self._claim.share(access.mode, access.gid)
        except (OSError, SockmgrError) as error:  # neither root nor a member may: chown(2)
            log.error(EventKind.CONTROL_SOCKET_NOT_SHARED, error=error)

    def mend(self) -> bool:
        """Listen at the path again if its node is gone; raise ControlError if another is there."""
        if self._claim is None or self._claim.holds:
            return False
        fresh = Claim(self._path, patience=0)  # the event loop must not wait for a lock
        for _ in range(BACKLOG):  # clients that had connected to the old socket are answered
            self._accept()
        asyncio.get_running_loop().remove_reader(self._claim.socket)
        self._claim.close()
        self._claim = fresh
        self._listen()
        self._share()
        return True

    async def close(self) -> None:
        """Let what is under way be answered (for `close_timeout`), then hang up and leave."""
        if self._claim is not None:
            claim = self._claim
            await self._hang_up(claim)
            claim.close()

    async def hand_over(self) -> socket.socket:
        """Hang up as close() does, but return the socket still listening; the caller owns it."""
        assert self._claim is not None  # noqa: S101 - a client asked for it through this socket
        claim = self._claim
        await self._hang_up(claim)
        return claim.socket

    async def _hang_up(self, claim: Claim) -> None:
        # From now on no client is accepted, and none is asked for another request.
        self._claim = None
        if self._retry is not None:
            self._retry.cancel()
        asyncio.get_running_loop().remove_reader(claim.socket)
        for client, peer in self._clients.items():
            if peer.idle:
                client.cancel()
        # The others wait for an answer, e.g. the client whose `stop` is the reason for all this.
        if under_way := {*self._clients, *self._operations}:
            await asyncio.wait(under_way, timeout=self._limits.close_timeout)
        rest = [*self._clients, *self._operations]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    # --- Connections ---

    # Not asyncio's server: it makes tasks and transports of its own, also for clients that are
    # turned away, and close() could not wait for them.

    def _listen(self) -> None:
        if self._claim is not None:
            asyncio.get_running_loop().add_reader(self._claim.socket, self._accept)

    def _accept(self) -> None:
        if self._claim is None:
            return
        try:
            # One at a time: a flood of clients must not keep facts from the services.
            sock, _ = self._claim.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has left
            return
        except OSError as error:  # accept(2): no descriptor or memory left; it would fail for ever
            log.error(EventKind.CONTROL_CLIENTS_MUST_WAIT, error=error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._claim.socket)
            self._retry = loop.call_later(self._limits.accept_delay, self._listen)
            return
        sock.setblocking(False)
        if (why := self._why_not(sock)) is not None:
            dismiss(sock, why)
            return
        peer = ControlConnection(sock, self._limits)
        task = asyncio.get_running_loop().create_task(self._attend(peer), name="control client")
        self._clients[task] = peer
        task.add_done_callback(lambda left: self._clients.pop(left).close())

    def _why_not(self, sock: socket.socket) -> SockmgrError | wire.Unanswerable | None:
        pid, uid = credentials(sock)
        if not self._access.may_call(varlink.STATUS, uid, groups(sock)):
            log.warning(EventKind.CONTROL_CLIENT_REFUSED, uid=uid, pid=pid)
            return wire.Unanswerable("PermissionDenied")
        if OpenFiles.left_above(sock.fileno()) < _SPARE_FILES:
            return ControlError(
                "too few descriptors are left: the manager needs them for what runs",
                means="what runs is not touched",
                do="try again when other clients are done; raise LimitNOFILE= of the manager",
            )
        # Some places are for root alone, who can so stop the manager whatever our own user does.
        # And whatever those do who are let in by a group, some are for our own user.
        places = self._limits.clients
        room = places - places // (8 if uid == os.geteuid() else 2) if uid else places
        was_crowded, self._crowded = self._crowded, len(self._clients) >= room
        if not self._crowded:
            return None
        if not was_crowded:
            log.warning(EventKind.CONTROL_SOCKET_CROWDED, clients=len(self._clients), pid=pid)
        return _too_many("clients", room)

    async def _attend(self, peer: ControlConnection) -> None:
        """Answer one client until it leaves; nothing that a client does may end more than this."""
        await peer.open()
        try:
            while self._claim is not None and (message := await peer.receive()) is not None:
                await self._answer(peer, message)
        except Dropped as why:
            log.debug("control client dropped", pid=peer.pid, why=str(why))
        except Exception as error:  # the one place: no client ends the manager
            _log_failure(error, pid=peer.pid)
            peer.dismiss(_unexpected(error))
        finally:
            peer.hang_up()

    async def _answer(self, peer: ControlConnection, message: bytes) -> None:
        call = wire.read_call(message)
        if call is None:
            raise Dropped("what it sent is no Varlink call")
        try:
            method, ask = wire.read_ask(call)
            self._check(method, ask, peer)
            if method.follows and call.more and not call.oneway:
                await self._follow(method, ask, peer)
                return
            operation = self._begin(method, ask, call, peer)
            if call.oneway:
                operation.add_done_callback(_record)
                return
            # What was begun goes on without its client: half a reload helps nobody.
            if not await peer.is_there_at(operation):
                operation.add_done_callback(_record)
                raise Dropped("it left before its answer")
            reply = wire.write_reply(operation.result())
        except (SockmgrError, wire.Unanswerable) as error:
            reply = wire.write_error(error)
        if not call.oneway:
            await peer.send(reply)

    def _check(self, method: _Method, ask: varlink.Ask, peer: ControlConnection) -> None:
        # What a text names, files and variables, would be read with our rights, as by a reload.
        reads_as_us = isinstance(ask, varlink.AskPlan) and ask.text is not None
        verb, uid = method.verb, peer.uid
        if self._access.may_call(varlink.RELOAD if reads_as_us else method, uid, peer.groups):
            return
        log.warning(EventKind.CONTROL_CALL_REFUSED, method=verb, uid=uid, pid=peer.pid)
        if reads_as_us:
            raise wire.Unanswerable("PermissionDenied")
        what = f"user {user_name(uid)} may not {verb} here"
        do = "ask as root or as the manager's own user, or see [control] in its config"
        raise ControlError(what, means="nothing was done", do=do)

    # --- Log and events: a client reads on for as long as it stays ---

    async def _follow(self, method: _Method, ask: varlink.Ask, peer: ControlConnection) -> None:
        found: _Found = self._call(method, ask)
        if isinstance(found, JournalPlace):
            await peer.send(wire.write_reply(_taken(found)))
            return
        if self._followers >= self._limits.followers:
            raise _too_many("clients that follow it", self._limits.followers)
        self._followers += 1
        peer.idle = True  # nothing is under way that close() would wait for
        try:
            await _send_on(found, peer)
        finally:
            self._followers -= 1
            peer.post(wire.write_reply(_taken(found)))

    # --- Operations: they outlive the client that asked for them ---

    def _begin(
        self, method: _Method, ask: varlink.Ask, call: wire.Call, peer: ControlConnection
    ) -> asyncio.Task[varlink.Answer]:
        # An operation goes on when its client hangs up, so the limit of clients does not limit
        # operations. Those that wait get half of the places: a stop is never refused because many
        # reloads wait.
        room = self._limits.operations // (2 if method.waits else 1)
        if len(self._operations) >= room:
            raise _too_many("requests", room)

        def report(step: Progress) -> None:
            if method.progress and call.more and not call.oneway:
                peer.post(wire.write_reply(method.progress(step), continues=True))

        operation = asyncio.get_running_loop().create_task(
            self._perform(method, ask, report, peer), name=method.name
        )
        self._operations.add(operation)
        operation.add_done_callback(self._operations.discard)
        return operation

    async def _perform(
        self,
        method: _Method,
        ask: varlink.Ask,
        report: Callable[[Progress], None],
        peer: ControlConnection,
    ) -> varlink.Answer:
        if method.changes:
            ASKER.set(name_of(peer.pid, peer.uid))
        if isinstance(ask, varlink.GetInfo | varlink.GetInterfaceDescription):
            return _introduce(ask)
        # Most handlers only look and return at once; awaiting is for those that wait for workers.
        found = self._call(method, ask, **({"progress": report} if method.progress else {}))
        if inspect.isawaitable(found):
            found = await found
        if method.follows:  # by a client that wants what there is now, and no more
            return _taken(found)
        answer: varlink.Answer = method.answer(found) if method.answer else found
        return answer

    def _call(self, method: _Method, ask: varlink.Ask, **more: object) -> Any:
        """Call the handler of a method with those arguments that the client has sent."""
        # A default stands once, with the handler; what was not sent is None here.
        given = {name: value for name, value in asdict(ask).items() if value is not None}
        return getattr(self._handler, method.handler)(**given, **more)


async def _send_on(follower: Follower | EventFollower, peer: ControlConnection) -> None:
    """Send what comes until the client leaves; a slow one holds up nobody but itself."""
    news, there = _taken(follower), True
    await peer.stream(wire.write_reply(news, continues=True))
    while there:
        more = follower.next()
        try:
            there = await peer.is_there_at(more)
        finally:
            more.cancel()
        # A line or event about another service wakes us as well: then there is nothing to send.
        news = _taken(follower)
        if news.is_news:
            await peer.stream(wire.write_reply(news, continues=True))


def _record(operation: asyncio.Task[varlink.Answer]) -> None:
    """Log the failure of an operation whose answer nobody waits for."""
    if not operation.cancelled() and (error := operation.exception()):
        _log_failure(error, method=operation.get_name())


def _log_failure(error: BaseException, **fields: object) -> None:
    if isinstance(error, SockmgrError):
        log.warning(EventKind.CONTROL_REQUEST_FAILED, error=error.what, **fields)
    else:
        trace = "".join(traceback.format_exception(error))
        log.error(EventKind.CONTROL_REQUEST_FAILED, error=repr(error), trace=trace, **fields)


def _taken(found: _Found) -> varlink.Logged | varlink.Happened:
    match found:
        case JournalPlace():
            return varlink.Logged(journal=found)
        case EventFollower():
            events, gone = found.take()
            return varlink.Happened(events=events, missed=gone, newest=found.newest)
        case Follower():
            lines, missed = found.take()
            return varlink.Logged(lines=lines, missed=missed or None)
        case _:
            assert_never(found)


def _too_many(what: str, limit: int) -> ControlError:
    return ControlError(
        f"the manager already has {limit} {what}",
        means="this one was turned away; what runs is not touched",
        do="try again when others are done",
    )


def _unexpected(error: Exception) -> SockmgrError:
    return SockmgrError(
        f"the manager could not answer: {error!r}",
        means="it goes on serving",
        do="this is a bug in sockmgr; the manager's log has the details",
    )


def _introduce(
    ask: varlink.GetInfo | varlink.GetInterfaceDescription,
) -> varlink.Info | varlink.Description:
    if isinstance(ask, varlink.GetInterfaceDescription):
        if ask.interface not in _INTERFACES:
            raise wire.Unanswerable("InterfaceNotFound", interface=ask.interface)
        file = Path(__file__).parents[2] / "api" / f"{ask.interface}.varlink"
        return varlink.Description(description=file.read_text(encoding="utf-8"))
    return varlink.Info(
        vendor="sockmgr",
        product="sockmgr",
        version=__version__,
        url="https://pypi.org/project/sockmgr/",
        interfaces=_INTERFACES,
    )
