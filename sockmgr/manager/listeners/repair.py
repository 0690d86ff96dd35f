"""What workers can do to the sockets of a listener: found out, and mended.

A worker shares its sockets with the manager. So it can shut one down, shrink the backlog, attach a
program that steers elsewhere, or remove the path of a unix socket: none may outlast the next look.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from sockmgr.errors import ListenError
from sockmgr.kernel import queues, sockets, steering
from sockmgr.manager.listeners.held import HeldSockets


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence on what was found, and whether all is well again."""

    text: str
    mended: bool = True


class Repair:
    """Mends the sockets of one listener, which it borrows, and says each thing once."""

    def __init__(self, held: HeldSockets) -> None:
        self._held = held
        self._mended: list[Finding] = []  # since the last look()
        self._stuck: set[str] = set()  # what the last look() could not mend

    def look(self) -> list[str]:
        """Look at everything, mend it, and return what was found, in sentences."""
        self._held.shutdowns.clear()
        found = [*self._mended, *self._mend_shutdown(), *self._mend_name(), *self._mend_backlog()]
        found += self._mend_choice()
        self._mended.clear()
        told = [each.text for each in found if each.text not in self._stuck]
        self._stuck = {each.text for each in found if not each.mended}
        self._held.drop_retired()
        return [f"listener {self._held.listen.name}: {each}" for each in told]

    def revive(self) -> None:
        """Have the queues that were shut down listen again; the next look() returns what was."""
        self._mended += [each for each in self._mend_shutdown() if each.mended]

    def _mend_shutdown(self) -> list[Finding]:
        down = [
            n
            for n, queue in enumerate(self._held.queues)
            if queue.type == socket.SOCK_STREAM and not queues.is_listening(queue)
        ]
        if not down:
            return []
        try:
            if self._held.pool is not None:
                return self._revive(self._held.pool, down)
            if self._held.queues[0].family == socket.AF_UNIX:
                return [self._replace("a worker shut the socket down")]
            self._held.queues[0].listen(self._held.listen.backlog)
        except OSError as error:
            what = "a worker shut the socket down, and it cannot listen again"
            return [Finding(f"{what}: {(error.strerror or '').lower()}", mended=False)]
        return [Finding(_listens_again(len(down)))]

    def _revive(self, pool: steering.Pool, down: list[int]) -> list[Finding]:
        try:
            pool.revive(down, backlog=self._held.listen.backlog)
        except OSError:
            # One that a worker has connected to somewhere, say, never listens again.
            useless = [n for n in down if not queues.is_listening(self._held.queues[n])]
            if self._held.systemds.intersection(useless):
                raise
            for n in useless:
                self._held.renew(n, backlog=self._held.listen.backlog)
            return [
                Finding(
                    "a worker shut the socket down, and it could not listen again; it is replaced, "
                    "and only workers started from now on accept there"
                )
            ]
        return [Finding(_listens_again(len(down)))]

    def _mend_choice(self) -> list[Finding]:
        """Choose as before, should a worker have attached a program of its own (socket(7))."""
        try:
            if self._held.pool is not None:
                self._held.pool.steer_again()
        except OSError as error:
            why = (error.strerror or "").lower()
            return [Finding(f"its queues cannot be steered now: {why}", mended=False)]
        return []

    def _mend_backlog(self) -> list[Finding]:
        wanted = queues.reachable(self._held.listen)
        shrunk = []
        for queue in self._held.queues:
            if queue.type != socket.SOCK_STREAM or not queues.is_listening(queue):
                continue
            found = queues.backlog(queue)
            if found < wanted:
                queue.listen(self._held.listen.backlog)
                shrunk.append(f"a worker shrank the backlog to {found}; it is {wanted} again")
        return [Finding(text) for text in shrunk[:1]]

    def _mend_name(self) -> list[Finding]:
        name = self._held.name
        if name is None or name.holds or self._held.admission.is_refusing:
            return []
        if not name.vacant and not (name.is_socket and sockets.is_stale(name.path)):
            return [
                Finding(
                    f"{name.path} is now something else, and new connections do not reach us; "
                    "remove it and reload",
                    mended=False,
                )
            ]
        did = f"a worker {'removed' if name.vacant else 'replaced'} {name.path}"
        if name.restore():
            return [Finding(f"{did}; it is there again")]
        return [self._replace(did)]

    def _replace(self, because: str) -> Finding:
        """Bind a new unix socket over the path; the old one lives until its queue is empty.

        An abstract name is free only when its last holder is gone, so that may well fail.
        """
        try:
            if self._held.name is None:
                fresh = sockets.bind(self._held.listen, reuse_port=False)
            else:
                fresh = sockets.bind_over(self._held.listen)
        except ListenError as error:
            return Finding(f"{because}, and {error.what}", mended=False)
        self._held.replace(fresh)
        return Finding(
            f"{because}; it is bound anew, and only workers started from now on accept there"
        )


def _listens_again(number: int) -> str:
    shut, listen = (
        ("the socket", "it listens") if number == 1 else (f"{number} sockets", "they listen")
    )
    return f"a worker shut {shut} down; {listen} again"
