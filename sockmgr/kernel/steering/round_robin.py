"""Exact round robin among the queues of a group, by eBPF. Needs CAP_BPF or root.

For each change a new program is loaded, with a list of its own. So nothing changes that a running
program reads, and every step that can fail comes before the new one is attached. The queues are in
one map by our numbers, so that their places in the kernel do not matter.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sockmgr.kernel.steering import bpf
from sockmgr.kernel.steering.flow import Flow

# linux/bpf.h: operation, class and mode of each instruction that is used here.
_MOV, _MOV_IMM, _ADD, _ADD_IMM, _SHIFT_IMM, _MOD_IMM = 0xBF, 0xB7, 0x0F, 0x07, 0x67, 0x97
_LOAD_WIDE, _LOAD, _STORE, _STORE_IMM, _FETCH_ADD = 0x18, 0x61, 0x63, 0x62, 0xDB
_JUMP_ABOVE, _JUMP_ZERO, _JUMP_NOT_ZERO, _CALL, _EXIT = 0x25, 0x15, 0x55, 0x85, 0x95
_LOADS, _JUMP_OTHER = {1: 0x71, 2: 0x69, 4: 0x61}, 0x56  # by size; compares 32 bits
_MAP_FD, _MAP_VALUE = 1, 2  # BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE
_SELECT_REUSEPORT = 82  # bpf_sk_select_reuseport
_LOAD_BYTES = 68  # bpf_skb_load_bytes_relative
_FROM_MAC_HEADER, _FROM_IP_HEADER = 0, 1  # BPF_HDR_START_MAC, BPF_HDR_START_NET
_MACS = 12  # bytes: the two addresses of an Ethernet header
_DROP, _PASS = 0, 1  # SK_DROP, SK_PASS
_PACKET = -48  # on the stack: room for what a Flow compares
_PAST = 0x7FFF  # stands for a jump to the end of an exception
_FALLBACKS = 2  # two, for the first may be the very queue that was shut down
# Entries of a list: enough for shares of a ten-thousandth; finer shares are rounded.
_LONGEST = 10_000
# Seconds within which the kernel frees the queues of a program that was replaced: an RCU grace
# period, usually 20 ms.
_FREED = 1.0
# These pass: memory or descriptors ran out, a signal came, or another manager has the queues.
_FOR_NOW = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why queues cannot take turns, what to do about it, and the long message of the verifier."""

    reason: str
    do: str
    verifier: str = ""

    @classmethod
    def of(cls, error: OSError) -> Refusal:
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
    """Return why this process cannot have round robin; None if it can.

    The kernel is asked once, and again only while the reason is one that passes.
    """
    try:
        return _refusal_for_good()
    except OSError as error:
        return Refusal.of(error)


@functools.cache
def _refusal_for_good() -> Refusal | None:
    try:
        with contextlib.closing(RoundRobin(room=1)) as trial:
            trial.take_order([0, 0])
            os.close(trial.load([0], {}))
    except OSError as error:
        if error.errno in _FOR_NOW:
            raise
        return Refusal.of(error)
    return None


class RoundRobin:
    """A map with the queues of one group, by our numbers. Owns the map and the newest program."""

    def __init__(self, *, room: int) -> None:
        """Make a map for numbers below `room`; raise OSError if bpf(2) is refused."""
        self.room = room
        self._program = self._listed = -1
        self._order: Sequence[int] = ()
        self._held: dict[int, socket.socket] = {}  # what is in the map, as far as we know
        self._map = bpf.create_map(bpf.SOCKARRAY, value_size=8, entries=room)

    def steer(
        self,
        queues: Sequence[socket.socket],
        weights: Mapping[int, int],
        private: Mapping[Flow, int],
        make_way: Callable[[], None],
        member: socket.socket,
    ) -> None:
        """Let the queues with these numbers take turns, in place of the program before.

        But what comes by a flow of `private` goes to the queue with that number.

        The program is attached to the group through `member`, any of its queues. No queue can be in
        two maps; so if an earlier program has one of them in another map, `make_way` is called,
        which must replace that program. Raises OSError, possibly after a call of `make_way`.
        """
        for number in (*weights, *private.values()):
            # The kernel is asked about a queue when it is fed first, not at each change of others.
            if self._held.get(number) is not queues[number]:
                self.hold(number, queues[number], make_way)
        self.take_order(turns(weights))
        program = self.load(list(weights)[:_FALLBACKS], private)
        try:
            bpf.attach(member, program)
        except BaseException:
            os.close(program)
            raise
        self._let_go()
        self._program = program

    def hold(self, number: int, queue: socket.socket, make_way: Callable[[], None]) -> None:
        """Put a queue into the map unless it is there; `make_way` is as for steer()."""
        if bpf.lookup(self._map, number, 8) is not None:  # the cookie of the socket
            self._held[number] = queue
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
                self._held[number] = queue
                return

    def doubt(self) -> None:
        """Ask anew which queues are in the map: the kernel takes one out that is shut down."""
        self._held.clear()

    def steer_again(self, member: socket.socket) -> None:
        """Attach the program of the last steer() once more, which goes on where its turns were."""
        bpf.attach(member, self._program)

    def take_order(self, order: Sequence[int]) -> None:
        """Have programs to come choose the queues of `order` in turn."""
        # The same list goes on where its turns were: an exception begins and ends very often.
        if order == self._order and self._listed >= 0:
            return
        # The value of its only key: the counter, then the numbers.
        value = struct.pack(f"=Q{len(order)}I", 0, *order)
        listed = bpf.create_map(bpf.ARRAY, value_size=len(value), entries=1)
        try:
            bpf.update(listed, 0, value)
        except BaseException:
            os.close(listed)
            raise
        if self._listed >= 0:
            os.close(self._listed)
        self._listed, self._order = listed, order

    def load(self, fallbacks: Sequence[int], private: Mapping[Flow, int]) -> int:
        """Return the fd of a program that chooses the queues of the list in turn; the caller's.

        If the queue whose turn it is was shut down, the program tries the fallbacks, one by one.
        """
        program = _program(self._map, self._listed, len(self._order), fallbacks)
        for flow, number in private.items():
            program = _exception(self._map, flow, number, program)
        return bpf.load([(_MOV, 6, 1, 0, 0), *program])  # the context, kept over calls

    def close(self) -> None:
        """Close the map and the program. A program that is attached goes on.

        As long as a descriptor of the program is open, no other map can have the queues.
        """
        self._let_go()
        if self._listed >= 0:
            os.close(self._listed)
        os.close(self._map)

    def _let_go(self) -> None:
        if self._program >= 0:
            os.close(self._program)
            self._program = -1


def turns(weights: Mapping[int, int]) -> list[int]:
    """Return a list with each number as often as its weight says, evenly spread."""
    if len(set(weights.values())) == 1:
        return list(weights)  # as with one worker a queue: made anew with each that comes or goes
    divisor = math.gcd(*weights.values())
    scale = min(1.0, _LONGEST * divisor / sum(weights.values())) / divisor
    placed: list[tuple[float, int]] = []
    for number, weight in weights.items():
        count = max(1, round(weight * scale))
        placed += [((turn + 0.5) / count, number) for turn in range(count)]
    placed.sort(key=lambda each: each[0])  # stable, so equals stay in the order of `weights`
    return [number for _, number in placed]


# --- The program ---------------------------------------------------------------------------------


def _program(queues: int, listed: int, count: int, fallbacks: Sequence[int]) -> bpf.Program:
    """Return the program; `queues` and `listed` are the fds of its two maps.

    If the last fallback fails as well, the kernel chooses by a hash among all members, also those
    that are not fed.
    """
    select = _select(queues)
    tries = [[(_STORE_IMM, 10, 0, -4, number), *select] for number in fallbacks]
    program = [
        (_LOAD_WIDE, 8, _MAP_VALUE, 0, listed),
        (0, 0, 0, 0, 0),
        (_MOV_IMM, 1, 0, 0, 1),
        (_FETCH_ADD, 8, 1, 0, 1),  # atomic: processors that come at once get different turns
        (_MOD_IMM, 1, 0, 0, count),
        # This jump is never taken, but the verifier does not know the bounds of a remainder.
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


def _exception(queues: int, flow: Flow, number: int, program: bpf.Program) -> bpf.Program:
    """Return `program` with an exception: packets of `flow` from this host go to this queue.

    If that was shut down they are refused, since in another queue nobody expects them.
    """
    code = [*_load(_FROM_IP_HEADER, flow.length), (_JUMP_NOT_ZERO, 0, 0, _PAST, 0)]
    for size, offset, value in flow.fields:
        # Loaded in the order of this machine, of whose words the immediate is a signed one.
        word = int.from_bytes(value.to_bytes(size, "big"), sys.byteorder)
        word -= (word >> 31) << 32
        code += [(_LOADS[size], 1, 10, _PACKET + offset, 0), (_JUMP_OTHER, 1, 0, _PAST, word)]
    # The interface is not shown, but what came by a wire has the address of a network card before
    # the IP header, or no such addresses at all. What this host sends to itself has zeros there.
    code += [*_load(_FROM_MAC_HEADER, _MACS), (_JUMP_NOT_ZERO, 0, 0, _PAST, 0)]
    for offset in range(0, _MACS, 4):
        code += [(_LOADS[4], 1, 10, _PACKET + offset, 0), (_JUMP_OTHER, 1, 0, _PAST, 0)]
    code += [
        (_STORE_IMM, 10, 0, -4, number),
        *_select(queues),
        (_JUMP_NOT_ZERO, 0, 0, 2, 0),
        (_MOV_IMM, 0, 0, 0, _PASS),
        (_EXIT, 0, 0, 0, 0),
        (_MOV_IMM, 0, 0, 0, _DROP),
        (_EXIT, 0, 0, 0, 0),
    ]
    for at, (op, target, source, offset, immediate) in enumerate(code):
        if offset == _PAST:
            code[at] = op, target, source, len(code) - at - 1, immediate
    return [*code, *program]


def _load(header: int, length: int) -> bpf.Program:
    """Return a call that loads bytes of the packet; it returns 0 if the packet has them."""
    return [
        (_MOV, 1, 6, 0, 0),
        (_MOV_IMM, 2, 0, 0, 0),
        (_MOV, 3, 10, 0, 0),
        (_ADD_IMM, 3, 0, 0, _PACKET),
        (_MOV_IMM, 4, 0, 0, length),
        (_MOV_IMM, 5, 0, 0, header),
        (_CALL, 0, 0, 0, _LOAD_BYTES),
    ]


def _select(queues: int) -> bpf.Program:
    """Return a call that chooses the queue whose number is on the stack; it returns 0 if it can."""
    return [
        (_MOV, 1, 6, 0, 0),
        (_LOAD_WIDE, 2, _MAP_FD, 0, queues),
        (0, 0, 0, 0, 0),
        (_MOV, 3, 10, 0, 0),
        (_ADD_IMM, 3, 0, 0, -4),
        (_MOV_IMM, 4, 0, 0, 0),
        (_CALL, 0, 0, 0, _SELECT_REUSEPORT),
    ]
