"""Programs of classic BPF, which need no privilege. Keeps nothing.

One that chooses among the members of a group returns the kernel's index of one of them, which
changes when a member leaves.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Mapping, Sequence

Program = Sequence[tuple[int, int, int, int]]  # of sock_filter: code, jt, jf, k

_ATTACH_FILTER, _DETACH_FILTER, _ATTACH_REUSEPORT = 26, 27, 51  # asm-generic/socket.h
_LDW, _LDH, _LDB, _AND, _MOD = 0x20, 0x28, 0x30, 0x54, 0x94  # linux/bpf_common.h
_JEQ, _JGE, _RET = 0x15, 0x35, 0x06
_AD_IFINDEX, _AD_RANDOM = 0xFFFFF008, 0xFFFFF038  # SKF_AD_OFF + 8, + 56
_NET = 0xFFF00000  # SKF_NET_OFF: loads from the IP header
_SYN, _ACK = 0x02, 0x10  # RFC 9293
_LOOPBACK = 1  # the interface lo has this index in every network namespace

DROP: Program = ((_RET, 0, 0, 0),)
# What begins a handshake is dropped; what goes on with one is not. A socket filter sees the
# transport header, whose byte 13 are the flags.
DROP_SYN: Program = (
    (_LDB, 0, 0, 13), (_AND, 0, 0, _SYN | _ACK), (_JEQ, 0, 1, _SYN), (_RET, 0, 0, 0),
    (_RET, 0, 0, 0xFFFFFFFF),
)  # fmt: skip


def steer(member: socket.socket, program: Program) -> None:
    """Have `program` choose among the group of `member`, in place of what did before."""
    _set(member, _ATTACH_REUSEPORT, program)


def put_filter(sock: socket.socket, program: Program) -> None:
    """Have `program` say what reaches this one socket."""
    _set(sock, _ATTACH_FILTER, program)


def remove_filter(sock: socket.socket) -> None:
    """Undo put_filter()."""
    sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)


def _set(sock: socket.socket, option: int, program: Program) -> None:
    code = array.array("B", b"".join(struct.pack("=HBBI", *each) for each in program))
    address, size = code.buffer_info()
    # struct sock_fprog; the kernel copies the instructions before setsockopt(2) returns
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("HL", size // 8, address))


def choice(weights: Mapping[int, int]) -> Program:
    """Return one `ret`, or a random number against cumulated weights; the keys are places.

    No way through it leads past the end, for then the kernel would hash over all members, the
    idle ones too.
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
    """Return the socket filter that drops what comes from `port` of this host."""
    return (
        (_LDW, 0, 0, _AD_IFINDEX),
        (_JEQ, 0, 3, _LOOPBACK),
        (_LDH, 0, 0, 0),  # a socket filter sees the transport header: the source port
        (_JEQ, 0, 1, port),
        (_RET, 0, 0, 0),
        (_RET, 0, 0, 0xFFFFFFFF),
    )


def exception(family: int, port: int, place: int, program: Program) -> Program:
    """Return `program` with an exception: what comes from `port` of this host goes to `place`."""
    version, offset = (0x40, 20) if family == socket.AF_INET else (0x60, 40)
    return [
        (_LDW, 0, 0, _AD_IFINDEX),
        (_JEQ, 0, 6, _LOOPBACK),
        (_LDB, 0, 0, _NET),
        (_AND, 0, 0, 0xF0),
        (_JEQ, 0, 3, version),
        (_LDH, 0, 0, _NET + offset),
        (_JEQ, 0, 1, port),
        (_RET, 0, 0, place),
        *program,
    ]
