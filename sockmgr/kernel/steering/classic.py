"""Programs of classic BPF, which need no privilege. Keeps nothing.

A program that chooses among the members of a group returns a *place*, the kernel's index of a
member. When a member leaves, the last one moves into its place.
"""

from __future__ import annotations

import array
import contextlib
import socket
import struct
from collections.abc import Mapping, Sequence

from sockmgr.kernel.steering.flow import Flow

Program = Sequence[tuple[int, int, int, int]]  # of sock_filter: code, jt, jf, k

_ATTACH_FILTER, _DETACH_FILTER, _ATTACH_REUSEPORT = 26, 27, 51  # asm-generic/socket.h
_LDW, _LDH, _LDB, _AND, _MOD = 0x20, 0x28, 0x30, 0x54, 0x94  # linux/bpf_common.h
_JEQ, _JGE, _RET = 0x15, 0x35, 0x06
_AD_IFINDEX, _AD_RANDOM = 0xFFFFF008, 0xFFFFF038  # SKF_AD_OFF + 8, + 56
_NET = 0xFFF00000  # SKF_NET_OFF: loads from the IP header
_SYN, _ACK = 0x02, 0x10  # RFC 9293
_LOADS = {1: _LDB, 2: _LDH, 4: _LDW}
_LOOPBACK = 1  # the interface lo has this index in every network namespace

DROP: Program = ((_RET, 0, 0, 0),)
# Drops a SYN without ACK, which begins a handshake, and nothing else. A socket filter sees the
# transport header, in which byte 13 has the flags.
DROP_SYN: Program = (
    (_LDB, 0, 0, 13), (_AND, 0, 0, _SYN | _ACK), (_JEQ, 0, 1, _SYN), (_RET, 0, 0, 0),
    (_RET, 0, 0, 0xFFFFFFFF),
)  # fmt: skip


def steer(member: socket.socket, program: Program) -> None:
    """Let `program` choose among the group of `member`, in place of the program before."""
    attach(member, encoded(program))


def encoded(program: Program) -> array.array[int]:
    """Return the instructions in the kernel's form, for a program that is attached repeatedly."""
    return array.array("B", b"".join(struct.pack("=HBBI", *each) for each in program))


def attach(member: socket.socket, code: array.array[int]) -> None:
    """Do as steer() does, with a program that is encoded already."""
    _set(member, _ATTACH_REUSEPORT, code)


def put_filter(sock: socket.socket, program: Program) -> None:
    """Let `program` decide which packets reach this one socket."""
    _set(sock, _ATTACH_FILTER, encoded(program))


def remove_filter(sock: socket.socket) -> None:
    """Undo put_filter(), also where that had failed."""
    with contextlib.suppress(FileNotFoundError):  # there is none
        sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)


def _set(sock: socket.socket, option: int, code: array.array[int]) -> None:
    address, size = code.buffer_info()
    # struct sock_fprog; the kernel copies the instructions before setsockopt(2) returns
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("HL", size // 8, address))


def choice(weights: Mapping[int, int]) -> Program:
    """Return a program that chooses a place at random, by `weights`; of one place, always that.

    No path through it ends without a choice: then the kernel would choose by a hash among all
    members, also those that are not fed.
    """
    (first, _), *others = weights.items()
    if not others:
        return [(_RET, 0, 0, first)]
    program = [(_LDW, 0, 0, _AD_RANDOM), (_MOD, 0, 0, sum(weights.values()))]
    bound = 0
    for place, weight in others:
        bound += weight
        program += [(_JGE, 1, 0, bound), (_RET, 0, 0, place)]
    return [*program, (_RET, 0, 0, first)]


def dropping(port: int) -> Program:
    """Return a socket filter that drops packets from `port` of this host."""
    return (
        (_LDW, 0, 0, _AD_IFINDEX),
        (_JEQ, 0, 3, _LOOPBACK),
        (_LDH, 0, 0, 0),  # a socket filter sees the transport header: the source port
        (_JEQ, 0, 1, port),
        (_RET, 0, 0, 0),
        (_RET, 0, 0, 0xFFFFFFFF),
    )


def exception(flow: Flow, place: int, program: Program) -> Program:
    """Return `program` with an exception: packets of `flow` from this host go to `place`."""
    # Who is elsewhere controls each field of a packet, but not by which interface it comes.
    wanted = [(_LDW, _AD_IFINDEX, _LOOPBACK)]
    wanted += [(_LOADS[size], _NET + offset, value) for size, offset, value in flow.fields]
    tests: list[tuple[int, int, int, int]] = []
    for left, (load, what, value) in zip(range(len(wanted), 0, -1), wanted, strict=True):
        # To the next test; or past those that are left, and the return.
        tests += [(load, 0, 0, what), (_JEQ, 0, 2 * left - 1, value)]
    return [*tests, (_RET, 0, 0, place), *program]
