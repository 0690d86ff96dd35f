"""The process: takes what a manager says, and goes on without one for as long as a worker lives."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from sockmgr.kernel.rights import close_all
from sockmgr.programs.dispatcher import messages
from sockmgr.programs.dispatcher.loop import Loop
from sockmgr.programs.dispatcher.messages import (
    CONNECTION,
    MANAGERS_END,
    PROTOCOL,
    Incomplete,
    Message,
    Outbox,
)
from sockmgr.programs.dispatcher.served import Served

_ABOUT_A_SERVICE = frozenset({
    "service", "attach", "process", "abandon", "detach", "queue", "listen", "feed", "quiet",
    "connections", "give", "moves",
})  # fmt: skip
_BACKLOG = 1000  # messages that wait for a manager that does not read


class Server:
    """Owns the connection to the manager, and the manager's end of it for the manager to come."""

    def __init__(self, loop: Loop, connection: socket.socket, version: str) -> None:
        """Say that this code is of `version`."""
        self._loop, self._connection, self._version = loop, connection, version
        self._epoch = 0
        self._is_last = False
        self._manager = -1  # a pidfd of the manager
        self._services: dict[str, Served] = {}
        self._unnamed: set[str] = set()
        self._outbox = Outbox(loop, connection)
        self._is_resting = self._over = False

    def run(self) -> None:
        """Serve until the manager says that it is over, or nobody can need it any more."""
        self._loop.add_reader(self._connection, self._hear)
        while not self._over:
            self._loop.turn()

    # --- The manager -----------------------------------------------------------------------------

    def _hear(self) -> None:
        try:
            heard = messages.receive(self._connection)
        except BlockingIOError:
            return
        except Incomplete as error:
            self._tell({"is": "refused", "why": str(error)})
            return
        if heard is None:  # nobody can have the other end but us, and we do not close it
            self._over = True
            return
        self._obey(*heard)

    def _obey(self, message: Message, fds: list[int]) -> None:
        do = message["do"]
        if fds and do not in {*_ABOUT_A_SERVICE, "hello"}:  # of a later version
            close_all(fds)
        if do in _ABOUT_A_SERVICE:
            self._of_service(message["service"], do, message, fds)
        elif do == "hello":
            self._meet(message, fds)
        elif do == "forget":
            if served := self._services.pop(message["service"], None):
                served.close()
        elif do == "settled":
            self._settle()
        elif do == "ask":
            self._answer(message)
        elif do == "release":
            self._release()
        elif do == "end":
            self._over = True

    def _of_service(self, name: str, do: str, message: Message, fds: list[int]) -> None:
        self._unnamed.discard(name)
        if do == "service" and name not in self._services:
            self._services[name] = Served(name, self._loop, self._tell, self._look)
        if name in self._services:
            getattr(self._services[name], do)(message, fds)
        else:
            close_all(fds)

    def _meet(self, message: Message, fds: list[int]) -> None:
        self._epoch, self._is_last = message["epoch"], message["last"]
        self._forget_manager()
        [self._manager] = fds
        self._loop.add_reader(self._manager, self._on_manager_gone)
        self._outbox.drop()
        self._go_on()
        self._unnamed = set(self._services)
        for served in self._services.values():
            served.begin_anew()
        about = {"protocol": PROTOCOL, "version": self._version, "pid": os.getpid()}
        self._tell({"is": "here", **about})

    def _settle(self) -> None:
        for name in self._unnamed:
            self._services.pop(name).close()
        self._unnamed.clear()
        for served in self._services.values():
            served.settle()

    def _answer(self, message: Message) -> None:
        if message["counts"]:
            for served in self._services.values():
                served.count()
        self._tell({"is": "answer", "number": message["number"]})

    def _release(self) -> None:
        for served in self._services.values():
            served.give_up()
        self._is_resting = True
        self._tell({"is": "released"})

    def _go_on(self) -> None:
        """Serve again if the manager that had another one take our place cannot have done so."""
        if self._is_resting:
            self._is_resting = False
            for served in self._services.values():
                served.go_on()

    def _on_manager_gone(self) -> None:
        self._forget_manager()
        self._outbox.drop()
        self._go_on()
        self._look()

    def _forget_manager(self) -> None:
        if self._manager >= 0:
            self._loop.remove_reader(self._manager)
            os.close(self._manager)
            self._manager = -1

    def _look(self) -> None:
        """End if there is no manager, and no worker for which another one would come."""
        served = any(each.is_served for each in self._services.values())
        if self._manager < 0 and (self._is_last or not served):
            self._over = True

    # --- What it tells ---------------------------------------------------------------------------

    def _tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message, soon at the latest; own its descriptors."""
        data = messages.write({**message, "epoch": self._epoch})
        if self._manager < 0 or len(self._outbox) >= _BACKLOG:
            close_all(fds)
            return
        self._outbox.put(data, list(fds))
        self._outbox.flush()

    def fail(self, error: BaseException) -> None:
        """Say why this process ends: it is a defect."""
        trace = error.__traceback__
        while trace and trace.tb_next:
            trace = trace.tb_next
        where = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace else ""
        fields = {"why": f"{type(error).__name__}: {error}", "where": where}
        said = {"is": "said", "level": "error", "kind": "dispatcher failed", "fields": fields}
        self._tell(said)


def main(version: str) -> None:
    """Serve the manager that started this, and those after it."""
    os.chdir("/")
    connection = socket.socket(fileno=CONNECTION)
    os.set_inheritable(CONNECTION, False)
    os.set_inheritable(MANAGERS_END, False)
    server = Server(Loop(), connection, version)
    try:
        server.run()
    except BaseException as error:
        server.fail(error)
        os._exit(1)
    sys.exit(0)
