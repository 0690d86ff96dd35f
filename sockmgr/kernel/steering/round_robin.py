"""Exact round robin among the queues of a group, by eBPF. Needs CAP_BPF or root.

Each change is a program and a list of its own: nothing that a running program reads ever changes,
and all that can fail fails before the new one is attached. The queues stand in one map by our
numbers, so that it does not matter which places the kernel gives to them.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sockmgr.kernel.steering import bpf

# linux/bpf.h: operation, class and mode of each instruction that is used here.
_MOV, _MOV_IMM, _ADD, _ADD_IMM, _SHIFT_IMM, _MOD_IMM = 0xBF, 0xB7, 0x0F, 0x07, 0x67, 0x97
_LOAD_WIDE, _LOAD, _STORE, _STORE_IMM, _FETCH_ADD = 0x18, 0x61, 0x63, 0x62, 0xDB
_JUMP_ABOVE, _JUMP_ZERO, _CALL, _EXIT = 0x25, 0x15, 0x85, 0x95
_MAP_FD, _MAP_VALUE = 1, 2  # BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE
_SELECT_REUSEPORT = 82  # bpf_sk_select_reuseport
_PASS = 1  # SK_PASS
_FALLBACKS = 2  # so that the one left for a queue that is shut down may be that queue
# Enough for shares of a tenth of a thousandth; what needs a longer list is rounded.
_LONGEST = 10_000
# Seconds in which the kernel takes a program apart that was replaced, and frees its queues: an
# RCU grace period, usually 20 ms.
_FREED = 1.0
# Of memory and descriptors there may be enough again, and no signal, and no other manager.
_FOR_NOW = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no round robin, what to do about it, and what the verifier says at length."""

    reason: str
    do: str
    verifier: str = ""

    @classmethod
    def of(cls, error: OSError) -> Refusal:
        """Tell it of what the kernel answered."""
        reason = (error.strerror or str(error)).lower()
        if error.errno in _FOR_NOW:
            return cls(f"bpf(2): {reason}", "nothing; it is tried again at the next change")
        if isinstance(error, bpf.RejectedError) and error.verifier:
            do = "use Linux 5.12 or later; if it is, report what the verifier said (level debug)"
            return cls(f"the kernel rejects the program: {reason}", do, error.verifier)
        if error.errno == errno.EPERM:
            return cls(f"bpf(2): {reason}", "give the manager CAP_BPF, or run it as root")
        return cls(f"bpf(2): {reason}", "use Linux 5.12 or later, on x86-64 or arm64")


def refusal() -> Refusal | None:
    """Return why this process cannot have round robin; None if it can. Tried once as a rule."""
    try:
        return _refusal_for_good()
    except OSError as error:
        return Refusal.of(error)


@functools.cache
def _refusal_for_good() -> Refusal | None:
    try:
        with contextlib.closing(RoundRobin(room=1)) as trial:
            os.close(trial.load([0, 0], [0]))
    except OSError as error:
        if error.errno in _FOR_NOW:
            raise
        return Refusal.of(error)
    return None


class RoundRobin:
    """The queues of one group, in a map with `room` for numbers below that; owns the map."""

    def __init__(self, *, room: int) -> None:
        """Raises OSError where bpf(2) is refused."""
        self.room = room
        self._map = bpf.create_map(bpf.SOCKARRAY, value_size=8, entries=room)

    def steer(
        self,
        queues: Sequence[socket.socket],
        weights: Mapping[int, int],
        make_way: Callable[[], None],
        member: socket.socket,
    ) -> None:
        """Let the queues of these numbers take turns, in place of the program before.

        `member` is the queue, of any number, by which the program is attached to the group.
        No queue can be in two maps: while the program before has one of them in another, `make_way`
        is called, which is to replace it. Raises OSError; that may have been done then.
        """
        for number in weights:
            self._hold(number, queues[number], make_way)
        program = self.load(turns(weights), list(weights)[:_FALLBACKS])
        try:
            bpf.attach(member, program)
        finally:
            os.close(program)

    def load(self, order: Sequence[int], fallbacks: Sequence[int]) -> int:
        """Return the fd of a program that gives these numbers in turn, by a list of its own.

        The fallbacks are tried, one after the other, if the queue whose turn it is was shut down.
        """
        # The counter, and then the numbers.
        value = struct.pack(f"=Q{len(order)}I", 0, *order)
        listed = bpf.create_map(bpf.ARRAY, value_size=len(value), entries=1)
        try:
            bpf.update(listed, 0, value)
            return bpf.load(_program(self._map, listed, len(order), fallbacks))
        finally:
            os.close(listed)

    def close(self) -> None:
        """Let go of the map. What is attached goes on."""
        os.close(self._map)

    def _hold(self, number: int, queue: socket.socket, make_way: Callable[[], None]) -> None:
        """Put the queue into the map, which the kernel takes it out of when it is shut down."""
        if bpf.lookup(self._map, number, 8) is not None:  # a cookie that stands for the socket
            return
        deadline = time.monotonic() + _FREED
        while True:
            try:
                bpf.update(self._map, number, struct.pack("=Q", queue.fileno()))
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                make_way()
            else:
                return


def turns(weights: Mapping[int, int]) -> list[int]:
    """Return a list with each number as often as its weight says, spread evenly over it."""
    divisor = math.gcd(*weights.values())
    scale = min(1.0, _LONGEST * divisor / sum(weights.values())) / divisor
    placed: list[tuple[float, int]] = []
    for number, weight in weights.items():
        count = max(1, round(weight * scale))
        placed += [((turn + 0.5) / count, number) for turn in range(count)]
    placed.sort(key=lambda each: each[0])  # stable: of equal ones, the first given first
    return [number for _, number in placed]


# --- The program ---------------------------------------------------------------------------------


def _program(queues: int, listed: int, count: int, fallbacks: Sequence[int]) -> bpf.Program:
    """Return it, with the two maps by their fds.

    After the last fallback the kernel would hash over all members, the idle ones too.
    """
    select = _select(queues)
    tries = [[(_STORE_IMM, 10, 0, -4, number), *select] for number in fallbacks]
    program = [
        (_MOV, 6, 1, 0, 0),  # the context, kept over calls
        (_LOAD_WIDE, 8, _MAP_VALUE, 0, listed),
        (0, 0, 0, 0, 0),
        (_MOV_IMM, 1, 0, 0, 1),
        (_FETCH_ADD, 8, 1, 0, 1),  # atomic: processors that come at once get different turns
        (_MOD_IMM, 1, 0, 0, count),
        # Never, but the verifier does not know the bounds of a remainder.
        (_JUMP_ABOVE, 1, 0, 4 + len(select) + 1, count - 1),
        (_SHIFT_IMM, 1, 0, 0, 2),
        (_ADD, 8, 1, 0, 0),
        (_LOAD, 1, 8, 8, 0),
        (_STORE, 10, 1, -4, 0),
    ]
    left = len(tries) * (1 + len(select) + 1)
    for step in [select, *tries]:
        program += [*step, (_JUMP_ZERO, 0, 0, left, 0)]
        left -= 1 + len(select) + 1
    return [*program, (_MOV_IMM, 0, 0, 0, _PASS), (_EXIT, 0, 0, 0, 0)]


def _select(queues: int) -> bpf.Program:
    """Return the call that chooses the queue whose number is on the stack; 0 if it could."""
    return [
        (_MOV, 1, 6, 0, 0),
        (_LOAD_WIDE, 2, _MAP_FD, 0, queues),
        (0, 0, 0, 0, 0),
        (_MOV, 3, 10, 0, 0),
        (_ADD_IMM, 3, 0, 0, -4),
        (_MOV_IMM, 4, 0, 0, 0),
        (_CALL, 0, 0, 0, _SELECT_REUSEPORT),
    ]
