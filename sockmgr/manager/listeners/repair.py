"""Finds and mends what workers can do to the sockets of a listener.

A worker shares its sockets with the manager. So it can shut one down, shrink the backlog, attach a
program that steers elsewhere, or remove the path of a unix socket. The next look() mends each.

A look after the start or the end of one worker costs the same however many queues there are: only
that worker's own queue is asked for its backlog, and epoll(7) says if any queue was shut down.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from sockmgr.errors import ListenError
from sockmgr.kernel import queues, sockets
from sockmgr.kernel.steering.pool import Pool
from sockmgr.manager.listeners.held import HeldSockets


class Damage(Enum):
    """What was done to a listener, mostly by a worker."""

    SHUT_DOWN = auto()  # shutdown(2) of a socket that all its holders share
    SHRUNK = auto()  # listen(2) with a smaller backlog: a habit of servers when they start
    PATH_LOST = auto()  # the path of a unix socket was removed, or something dead is there
    PATH_TAKEN = auto()  # something that lives is at the path of a unix socket
    NOT_STEERED = auto()  # the program that chooses a queue was replaced, and cannot come back


class Remedy(Enum):
    """What the manager did about a damage."""

    RESTORED = auto()  # the same socket is as it was
    REPLACED = auto()  # there is a new socket, which only workers started from now on have
    NONE = auto()  # it could not mend the damage, and tries again at the next inspection


@dataclass(frozen=True, slots=True)
class Finding:
    """A damage and its remedy; `text` describes both for a person."""

    damage: Damage
    remedy: Remedy
    text: str

    def __str__(self) -> str:
        return self.text


class Repair:
    """Mends the sockets of one listener, which it borrows, and reports each damage once."""

    def __init__(self, held: HeldSockets) -> None:
        self._held = held
        self._mended: list[Finding] = []  # since the last look()
        self._stuck: set[Finding] = set()  # what the last look() could not mend

    @property
    def is_due(self) -> bool:
        """Whether the next look() is at every queue, and may close and replace some of them."""
        return self._held.shutdowns.is_due or bool(self._mended or self._stuck)

    def look(self, lease: int | None = None) -> list[Finding]:
        """Mend what there is to mend, and return the findings that were not returned before.

        With a lease the look is at its queue and at what all queues have in common, unless one of
        them was shut down or could not be mended before: then it is at every queue.
        """
        one = None if self.is_due else lease
        self._held.shutdowns.clear()
        found = [*self._mended, *(self._mend_shutdown() if one is None else ())]
        found += self._mend_name()
        found += self._mend_backlog(self._held.queues if one is None else self._held.of(one))
        found += self._mend_choice(one)
        self._mended.clear()
        fresh = [each for each in found if each not in self._stuck]
        self._stuck = {each for each in found if each.remedy is Remedy.NONE}
        self._held.drop_retired()
        name = self._held.listen.name
        return [replace(each, text=f"listener {name}: {each.text}") for each in fresh]

    def revive(self) -> None:
        """Have the queues that were shut down listen again; the next look() returns a finding."""
        if not self.is_due:
            return  # one call instead of two a queue: asked for before each start of a worker
        found = self._mend_shutdown()
        self._mended += [each for each in found if each.remedy is not Remedy.NONE]

    def _mend_shutdown(self) -> list[Finding]:
        down = [n for n, queue in enumerate(self._held.queues) if queues.is_down(queue)]
        if not down:
            return []
        try:
            if self._held.pool is not None:
                return self._revive(self._held.pool, down)
            if self._held.queues[0].family == socket.AF_UNIX:
                return [self._replace(Damage.SHUT_DOWN, "a worker shut the socket down")]
            self._held.queues[0].listen(self._held.listen.backlog)
        except OSError as error:
            what = "a worker shut the socket down, and it cannot listen again"
            text = f"{what}: {(error.strerror or '').lower()}"
            return [Finding(Damage.SHUT_DOWN, Remedy.NONE, text)]
        return [_listens_again(len(down))]

    def _revive(self, pool: Pool, down: list[int]) -> list[Finding]:
        try:
            pool.revive(down, backlog=self._held.listen.backlog)
        except OSError:
            # One that a worker has connected to somewhere, say, never listens again.
            useless = [n for n in down if not queues.is_listening(self._held.queues[n])]
            if self._held.systemds.intersection(useless):
                raise
            for n in useless:
                self._held.renew_queue(n)
            return [
                Finding(
                    Damage.SHUT_DOWN,
                    Remedy.REPLACED,
                    "a worker shut the socket down, and it could not listen again; it is replaced, "
                    "and only workers started from now on accept there",
                )
            ]
        return [_listens_again(len(down))]

    def _mend_choice(self, lease: int | None) -> list[Finding]:
        """Choose as before, should a worker have attached a program of its own (socket(7)).

        With a lease only its queue can have been shut down, and listen again already.
        """
        try:
            if (pool := self._held.pool) is not None:
                before = len(pool)
                pool.steer_again(lease)
                if len(pool) > before:  # workers have locked all others, SO_LOCK_FILTER
                    self._held.watch()
        except OSError as error:
            why = (error.strerror or "").lower()
            text = f"its queues cannot be steered now: {why}"
            return [Finding(Damage.NOT_STEERED, Remedy.NONE, text)]
        return []

    def _mend_backlog(self, asked: Sequence[socket.socket]) -> list[Finding]:
        wanted = self._held.listen.backlog
        shrunk = []
        for queue in asked:
            if queue.type != socket.SOCK_STREAM or not queues.is_listening(queue):
                continue
            found = queues.backlog(queue)
            if found < wanted and found < queues.reachable(self._held.listen):
                queue.listen(wanted)
                shrunk.append(
                    f"a worker shrank the backlog to {found}; it is {queues.backlog(queue)} again"
                )
        return [Finding(Damage.SHRUNK, Remedy.RESTORED, text) for text in shrunk[:1]]

    def _mend_name(self) -> list[Finding]:
        name = self._held.name
        if name is None or name.holds or self._held.admission.is_refusing:
            return []
        if not name.vacant and not (name.is_socket and sockets.is_stale(name.path)):
            return [
                Finding(
                    Damage.PATH_TAKEN,
                    Remedy.NONE,
                    f"{name.path} is now something else, and new connections do not reach us; "
                    "remove it and reload",
                )
            ]
        did = f"a worker {'removed' if name.vacant else 'replaced'} {name.path}"
        if name.restore():
            return [Finding(Damage.PATH_LOST, Remedy.RESTORED, f"{did}; it is there again")]
        return [self._replace(Damage.PATH_LOST, did)]

    def _replace(self, damage: Damage, because: str) -> Finding:
        """Bind a new unix socket over the path; the old one lives until its queue is empty.

        An abstract name is free only when its last holder is gone, so that may well fail.
        """
        try:
            if self._held.name is None:
                fresh = sockets.bind(self._held.listen, reuse_port=False)
            else:
                fresh = sockets.bind_over(self._held.listen)
        except ListenError as error:
            return Finding(damage, Remedy.NONE, f"{because}, and {error.what}")
        self._held.replace(fresh)
        text = f"{because}; it is bound anew, and only workers started from now on accept there"
        return Finding(damage, Remedy.REPLACED, text)


def _listens_again(number: int) -> Finding:
    shut, listen = (
        ("the socket", "it listens") if number == 1 else (f"{number} sockets", "they listen")
    )
    text = f"a worker shut {shut} down; {listen} again"
    return Finding(Damage.SHUT_DOWN, Remedy.RESTORED, text)
