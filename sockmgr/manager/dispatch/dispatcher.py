"""The dispatcher of this manager: started when it is wanted, adopted, watched, replaced.

It is told everything anew by each manager and whenever it is another process, so what it should do
is known here alone, and nothing is lost with it but what it had in its hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Collection, Mapping, Sequence

from sockmgr import __version__
from sockmgr.api.records import EventKind
from sockmgr.errors import SpawnError
from sockmgr.fleet.endings import describe_exit
from sockmgr.fleet.snapshot import DispatcherSnapshot
from sockmgr.kernel.rights import close_all
from sockmgr.log import Log
from sockmgr.manager.crash_points import Point, reached
from sockmgr.manager.dispatch.process import DispatcherProcess
from sockmgr.manager.dispatch.service import ServiceDispatch
from sockmgr.manager.restarts import Restarts
from sockmgr.programs.dispatcher import messages
from sockmgr.programs.dispatcher.messages import PROTOCOL, Message

CONNECTION, PIDFD = "@dispatcher", "@dispatcher/pidfd"  # as the store has them

PATIENCE = 10.0  # seconds after which a dispatcher that does not answer is replaced
AGAIN = 1.0  # seconds until what a dispatcher had no files for is said to it again
END = 2.0
COUNT = 2.0  # seconds until a status is told with the counts of before
MEANS = "new connections wait until there is another; it may have lost those in its hands"

log = Log("sockmgr")


class Dispatcher:
    """At most one serves at a time; while it is replaced there is its successor beside it.

    `changed` is called when there is another to keep for the next manager: it must be kept before
    it has a channel, for two that pass connections to the same workers would not understand them.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        left: dict[str, list[int]],
        is_last: bool,
        is_upgrade: bool,
    ) -> None:
        """Take out of the descriptors that were `left` those of a dispatcher, and own them.

        Replace that one if this `is_upgrade`. `is_last`: no manager can come after this one.
        """
        self._changed = changed
        self._is_last, self._is_upgrade = is_last, is_upgrade
        self._services: dict[str, ServiceDispatch] = {}
        self._serving = self._found(left)
        self._next: DispatcherProcess | None = None  # it takes the place of the one that serves
        self._former: DispatcherProcess | None = None  # its place was taken, and it ends
        self._is_ready = False  # the one that serves has been told all
        self._given_back: list[tuple[Message, list[int]]] = []  # by the one before
        self._restarts = Restarts()
        self._number = 0  # of the last question
        self._counted: list[tuple[int, asyncio.Future[None]]] = []
        self._again: asyncio.TimerHandle | None = None
        self._is_kept = False  # the one that serves, as its replacement has failed
        self._is_short = False  # of descriptors, so that it could not be told all
        self._is_starting = self._begun = self._over = False

    # --- What the services ask -------------------------------------------------------------------

    def serve(self, service: ServiceDispatch) -> None:
        """Know that a service has workers to pass connections to; have a dispatcher for it."""
        self._services[service.name] = service
        if self._begun:
            self._have_one()

    def tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message, if a dispatcher is there that has been told all; the fds are lent."""
        # While none is ready nothing is kept back: the next one is told everything from the start.
        if self._is_ready and self._serving:
            self._send(self._serving, message, fds)
            self.probe()

    def forget(self, service: ServiceDispatch) -> None:
        if self._services.get(service.name) is service:
            del self._services[service.name]

    def probe(self) -> None:
        """See to it that a dispatcher that does not answer is noticed."""
        if self._is_ready and self._serving and not self._serving.is_expected:
            self._ask(self._serving)

    # --- What the manager asks -------------------------------------------------------------------

    @property
    def pids(self) -> Collection[int]:
        return {each.pid for each in (self._serving, self._next, self._former) if each}

    @property
    def descriptors(self) -> Mapping[str, int]:
        """What the next manager needs, by name; borrowed."""
        if self._serving is None:
            return {}
        return {CONNECTION: self._serving.fileno(), PIDFD: self._serving.process.pidfd}

    @property
    def written(self) -> DispatcherSnapshot | None:
        """What the next manager knows the one that serves by."""
        if self._serving is None:
            return None
        return DispatcherSnapshot(
            pid=self._serving.pid,
            started=self._serving.process.started,
            connection=os.fstat(self._serving.fileno()).st_ino,
        )

    @property
    def pid(self) -> int | None:
        """The pid of the one that serves; None if none is needed, 0 if it is missing."""
        if self.is_missing:
            return 0
        return self._serving.pid if self._serving else None

    @property
    def is_missing(self) -> bool:
        """Whether connections wait because there is none; one that was found serves already."""
        return bool(self._services) and self._begun and self._serving is None

    def begin(self) -> None:
        """Go on with the one that another manager left, or start one: all services are there."""
        self._begun = True
        if self._serving:
            log.info("dispatcher found", pid=self._serving.pid)
            self._serving.greet()
            self._serving.expect(PATIENCE)
        elif self._services:
            self._have_one()

    async def count(self) -> None:
        """Have the services know their counts; give up when no answer comes."""
        if self._is_ready and self._serving:
            future = asyncio.get_running_loop().create_future()
            self._counted.append((self._ask(self._serving, counts=True), future))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(future, COUNT)

    async def end(self) -> None:
        """Have it end, since no worker is left."""
        self._over, self._is_ready = True, False
        self._restarts.cancel()
        if self._again:
            self._again.cancel()
        # All are asked before any is waited for, so that they end at the same time.
        processes = [each for each in (self._serving, self._next, self._former) if each]
        for process in processes:
            self._send(process, {"do": "end"})
        for process in processes:
            await process.over(END)

    # --- The life of one -------------------------------------------------------------------------

    def _found(self, left: dict[str, list[int]]) -> DispatcherProcess | None:
        """Return the one that another manager left; it has not been spoken to."""
        connections, pidfds = (left.pop(name, []) for name in (CONNECTION, PIDFD))
        if connections and pidfds:
            return DispatcherProcess.adopt(self, connections[0], pidfds[0], is_last=self._is_last)
        for pidfd in pidfds:  # it cannot be spoken to
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for connection in connections:  # nor watched
            with socket.socket(fileno=connection) as sock, contextlib.suppress(OSError):
                messages.send(sock, messages.write({"do": "end"}))
        close_all(pidfds)
        return None

    def _have_one(self) -> None:
        if not (self.pids or self._is_starting or self._over):
            self._start()

    def _start(self) -> None:
        self._is_starting = False
        try:
            self._next = DispatcherProcess.start(self, __version__, is_last=self._is_last)
        except SpawnError as error:
            log.error(EventKind.NO_DISPATCHER, error=error.what, means=error.means, do=error.do,
                      tried_again_in=self._start_again())  # fmt: skip
        else:
            self._next.expect(PATIENCE)

    def _start_again(self) -> float:
        self._is_starting = True
        return self._restarts.plan(self._start)

    def hear(self, process: DispatcherProcess, message: Message, fds: list[int]) -> None:
        """Take what a dispatcher says since our hello, and own the descriptors."""
        match message["is"]:
            case "here":
                process.answered()
                process.is_heard = True
                self._meet(process, message)
            case "answer":
                self._on_answer(process, message["number"])
            case "held":
                self._given_back.append((message, fds))
            case "released":
                self._succeed(process)
            case "refused":
                self._say_again_later(message["why"])
            case "said":
                getattr(log, message["level"])(message["kind"], **message["fields"])
            case _:
                if service := self._services.get(message.get("service", "")):
                    service.hear(message)

    def ended(self, process: DispatcherProcess, status: int) -> None:
        """Have another one in the place of a dispatcher that has ended; all it said was heard."""
        process.close()
        if process is self._serving:
            self._serving, self._is_ready = None, False
            self._number += 1
            self._count_up_to(self._number)
        elif process is self._next:
            self._next = None
        else:
            self._former = None
        if process.is_leaving or self._over:
            log.debug("dispatcher left", pid=process.pid)
        else:
            how = process.why_killed or describe_exit(status)
            log.warning(EventKind.DISPATCHER_ENDED, pid=process.pid, how=how, means=MEANS,
                        another_in=0.0 if self.pids else self._start_again())  # fmt: skip
        if self._over:
            return
        if self._next and self._next.is_heard and self._serving is None:
            self._take_turns()
        elif self._serving and not (self._next or self._is_ready):
            self._keep(self._serving)

    def _keep(self, process: DispatcherProcess) -> None:
        """Go on with the one that was to be replaced, and may rest: another cannot be had."""
        self._is_kept, process.is_leaving = True, False
        process.greet()
        process.expect(PATIENCE)

    def _meet(self, process: DispatcherProcess, about: Message) -> None:
        if process is self._next and about["protocol"] != PROTOCOL:
            process.kill("its code was replaced by a newer one: run sockmgr upgrade")
        elif process is self._next and self._serving is None:
            self._take_turns()
        # The successor is up, so connections wait only while the two change places.
        elif process is self._next and self._serving:
            self._make_way(self._serving)
        elif not self._is_kept and (
            self._is_upgrade or (about["protocol"], about["version"]) != (PROTOCOL, __version__)
        ):
            self._start()
        else:
            self._go_on()

    def _make_way(self, before: DispatcherProcess) -> None:
        """Have the one that serves accept no more, and give back what it holds.

        It ends only when the next one has been told all: until then it has what the manager after
        us would need, if we and the keeper were killed now.
        """
        self._is_ready = False
        before.is_leaving = True
        self._ask(before, counts=True)
        before.answered()
        before.expect(PATIENCE)
        self._send(before, {"do": "release"})

    def _succeed(self, before: DispatcherProcess) -> None:
        """Let the next one serve in the place of one that rests, which ends."""
        if before is self._serving and self._next and self._next.is_heard:
            self._former = before
            before.answered()
            self._take_turns()
            reached(Point.DISPATCHER_SUCCEEDS)
            self._send(before, {"do": "end"})
            before.expect(PATIENCE)

    def _take_turns(self) -> None:
        """Let the next one serve: the one before has ended, or rests."""
        self._serving, self._next = self._next, None
        for service in self._services.values():
            service.is_new()
        if self._serving:
            log.info("dispatcher started", pid=self._serving.pid)
            self._go_on()

    def _go_on(self) -> None:
        """Say everything to the one that serves from now on."""
        # It is kept for the next manager before it can hold a connection.
        self._changed()
        self._is_ready = True
        self._say_all()
        self.tell({"do": "settled"})
        # What the former dispatcher had accepted and not passed on is passed on by this one.
        for message, fds in self._given_back:
            about = {"service": message["service"], "key": message["key"]}
            self.tell({"do": "connections", **about}, fds)
            close_all(fds)
        self._given_back.clear()
        if self._serving:
            self._ask(self._serving, counts=True)

    def _say_all(self) -> None:
        for service in self._services.values():
            service.say_all()

    def _say_again_later(self, why: str) -> None:
        if self._again is not None:
            return
        self._again = asyncio.get_running_loop().call_later(AGAIN, self._say_again)
        if not self._is_short:
            self._is_short = True
            means = "it goes on with what it knows, and is told again until it works"
            do = "raise LimitNOFILE= or ulimit -n of the manager"
            log.error(EventKind.CONNECTIONS_WAIT, why=f"cannot be told more: {why}", means=means,
                      do=do)  # fmt: skip

    def _say_again(self) -> None:
        self._again = None
        self._say_all()
        if self._is_ready and self._serving and self._again is None:
            self._ask(self._serving)

    # --- Questions -------------------------------------------------------------------------------

    def _send(self, process: DispatcherProcess, message: Message, fds: Sequence[int] = ()) -> None:
        try:
            process.send(message, fds)
        except OSError as error:
            self._say_again_later((error.strerror or "").lower())

    def _ask(self, process: DispatcherProcess, *, counts: bool = False) -> int:
        self._number += 1
        self._send(process, {"do": "ask", "number": self._number, "counts": counts})
        process.expect(PATIENCE)
        return self._number

    def _on_answer(self, process: DispatcherProcess, number: int) -> None:
        # One that leaves has a deadline for its end, which an answer must not put off.
        if self._is_short and self._again is None and number == self._number:
            self._is_short = False
            log.info("the dispatcher knows all again")
        if not process.is_leaving:
            process.answered()
            if number < self._number:
                process.expect(PATIENCE)
        self._count_up_to(number)

    def _count_up_to(self, number: int) -> None:
        """Know that whoever waits for the counts of this question, or an earlier one, has them."""
        for asked, future in self._counted:
            if asked <= number and not future.done():
                future.set_result(None)
        self._counted = [each for each in self._counted if not each[1].done()]
