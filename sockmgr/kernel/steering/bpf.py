"""bpf(2): maps, and programs that choose among a group of SO_REUSEPORT sockets.

The caller owns each descriptor that a function returns; it is close-on-exec. A program that is
attached, and the maps that it uses, live on in the kernel when their descriptors are closed.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import socket
import struct
from collections.abc import Sequence

Program = Sequence[tuple[int, int, int, int, int]]  # of bpf_insn: code, dst, src, off, imm

ARRAY, SOCKARRAY = 2, 20  # BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY

# The number of bpf(2): asm/unistd_64.h, asm-generic/unistd.h. No other architecture was tried.
NUMBER = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROG_LOAD = 0, 1, 2, 5
_SK_REUSEPORT = 21  # BPF_PROG_TYPE_SK_REUSEPORT
# BPF_SK_REUSEPORT_SELECT and, since Linux 5.14, _SELECT_OR_MIGRATE. With the latter the program
# also chooses the member that inherits the connections of a member which is closed or shut down;
# otherwise these are reset.
_SELECT, _SELECT_OR_MIGRATE = 39, 40
_ATTACH_REUSEPORT = 52  # SO_ATTACH_REUSEPORT_EBPF
_NAME = b"sockmgr"  # for bpftool(8); at most 15 characters
_LOG_SIZE = 1 << 20


class RejectedError(OSError):
    """The kernel rejects a program; `verifier` is the long message of its verifier."""

    def __init__(self, number: int, verifier: str) -> None:
        super().__init__(number, os.strerror(number))
        self.verifier = verifier


def create_map(kind: int, *, value_size: int, entries: int) -> int:
    """Return the fd of a new map with keys from 0."""
    attributes = struct.pack("=IIIIIII16s", kind, 4, value_size, entries, 0, 0, 0, _NAME)
    return _bpf(_MAP_CREATE, attributes)


def lookup(fd: int, key: int, size: int) -> bytes | None:
    """Return the value of `key`, `size` bytes; None if there is none."""
    value = ctypes.create_string_buffer(size)
    try:
        _access(_MAP_LOOKUP, fd, key, value)
    except FileNotFoundError:
        return None
    return value.raw


def update(fd: int, key: int, value: bytes) -> None:
    _access(_MAP_UPDATE, fd, key, ctypes.create_string_buffer(value, len(value)))


def load(program: Program) -> int:
    """Return the fd of a program that is ready to be attached. Raises RejectedError."""
    code = b"".join(
        struct.pack("=BBhi", op, source << 4 | target, offset, immediate)
        for op, target, source, offset, immediate in program
    )
    try:
        try:
            return _load(code, _SELECT_OR_MIGRATE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: the kernel may just lack this attach type
                raise
            return _load(code, _SELECT)
    except OSError as error:
        raise RejectedError(error.errno or errno.EINVAL, _verdict(code)) from error


def attach(member: socket.socket, program: int) -> None:
    """Let `program`, a borrowed fd, choose among the group of `member`, in place of any other."""
    member.setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT, program)


def _verdict(code: bytes) -> str:
    """Return the message of the verifier about a program that it rejects."""
    log = ctypes.create_string_buffer(_LOG_SIZE)
    try:
        os.close(_load(code, _SELECT, log))
    except OSError:
        return log.value.decode(errors="replace").strip()
    return ""


def _load(code: bytes, attach_type: int, log: ctypes.Array[ctypes.c_char] | None = None) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    # Nothing in our programs needs the GPL.
    licence = ctypes.create_string_buffer(b"MIT")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        _SK_REUSEPORT,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        0 if log is None else 1,
        0 if log is None else len(log),
        0 if log is None else ctypes.addressof(log),
        0,
        0,
        _NAME,
        0,
        attach_type,
    )
    return _bpf(_PROG_LOAD, attributes)


def _access(command: int, fd: int, key: int, value: ctypes.Array[ctypes.c_char]) -> None:
    place = ctypes.c_uint32(key)
    _bpf(command, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(place), ctypes.addressof(value), 0))


@functools.cache
def _syscall() -> ctypes._CFuncPtr:  # type: ignore[name-defined]
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call


def _bpf(command: int, attributes: bytes) -> int:
    number = NUMBER.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    union = ctypes.create_string_buffer(attributes, len(attributes))
    size = ctypes.c_long(len(attributes))
    result: int = _syscall()(ctypes.c_long(number), ctypes.c_long(command), union, size)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
