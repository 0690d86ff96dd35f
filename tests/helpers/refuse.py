"""Run a command to which the kernel refuses something, as in a container: `refuse WHAT COMMAND...`.

WHAT is `pidfd` (pidfd_open), `steering` (SO_ATTACH_REUSEPORT_CBPF), `netlink` (its sockets),
`bpf`, `clone3`, or `container`: what the default profiles of Docker and Podman refuse to a process
without capabilities, as far as Python, sockmgr or a server might try it. A seccomp filter says
EPERM to it (seccomp(2)), to the command and to all that it starts. To clone3 it says ENOSYS, as
those of containers do, or glibc could start no thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_NUMBERS = {  # asm/unistd_64.h, asm-generic/unistd.h
    "x86_64": {
        "setsockopt": 54, "socket": 41, "bpf": 321, "mount": 165, "umount2": 166, "pivot_root": 155,
        "unshare": 272, "setns": 308, "kcmp": 312, "perf_event_open": 298, "userfaultfd": 323,
        "keyctl": 250, "add_key": 248, "request_key": 249, "open_by_handle_at": 304, "syslog": 103,
    },
    "aarch64": {
        "setsockopt": 208, "socket": 198, "bpf": 280, "mount": 40, "umount2": 39, "pivot_root": 41,
        "unshare": 97, "setns": 268, "kcmp": 272, "perf_event_open": 241, "userfaultfd": 282,
        "keyctl": 219, "add_key": 217, "request_key": 218, "open_by_handle_at": 265, "syslog": 116,
    },
}[platform.machine()] | {
    # Newer ones have the same number everywhere.
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "pidfd_open": 434,
    "clone3": 435, "pidfd_getfd": 438, "process_madvise": 440,
}  # fmt: skip
_WANTED = {"pidfd_open", "setsockopt", "socket"}  # containers are given these
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_LDW, _JEQ, _RET = 0x20, 0x15, 0x06
_AF_NETLINK, _ATTACH_REUSEPORT_CBPF = 16, 51


def program(what: str) -> bytes:
    """Return the filter: seccomp_data has the number at 0 and argument n at 16 + 8 * n."""
    calls, argument, value = {
        "pidfd": (("pidfd_open",), 0, None),
        "steering": (("setsockopt",), 2, _ATTACH_REUSEPORT_CBPF),
        "netlink": (("socket",), 0, _AF_NETLINK),
        "bpf": (("bpf",), 0, None),
        "clone3": (("clone3",), 0, None),
        "container": (_NUMBERS.keys() - _WANTED, 0, None),
    }[what]
    code = [(_LDW, 0, 0, 0)]
    for call in calls:
        code += [(_JEQ, 0, 1 if value is None else 3, _NUMBERS[call])]
        if value is not None:
            code += [(_LDW, 0, 0, 16 + 8 * argument), (_JEQ, 0, 1, value)]
        code += [(_RET, 0, 0, _REFUSE | (errno.ENOSYS if call == "clone3" else errno.EPERM))]
    code += [(_RET, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def refuse(what: str) -> None:
    """Have this process, and what it starts, refused `what` from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program(what))
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(code))
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _MODE_FILTER, head)):
        if libc.prctl(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    refuse(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])
