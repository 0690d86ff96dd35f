"""Run a command to which the kernel refuses something, as in a container: `refuse WHAT COMMAND...`.

WHAT is `pidfd` (pidfd_open), `steering` (SO_ATTACH_REUSEPORT_CBPF), `netlink` (its sockets),
`bpf` or `clone3`; a seccomp filter says EPERM to it (seccomp(2)), to the command and to all that it
starts. To clone3 it says ENOSYS, as those of containers do, or glibc could start no thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_NUMBERS = {  # asm/unistd_64.h, asm-generic/unistd.h: pidfd_open, setsockopt, socket, bpf
    "x86_64": (434, 54, 41, 321),
    "aarch64": (434, 208, 198, 280),
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_LDW, _JEQ, _RET = 0x20, 0x15, 0x06
_AF_NETLINK, _ATTACH_REUSEPORT_CBPF = 16, 51


def program(what: str) -> bytes:
    """Return the filter: seccomp_data has the number at 0 and argument n at 16 + 8 * n."""
    pidfd_open, setsockopt, socket, bpf = _NUMBERS[platform.machine()]
    number, argument, value = {
        "pidfd": (pidfd_open, 0, None),
        "steering": (setsockopt, 2, _ATTACH_REUSEPORT_CBPF),
        "netlink": (socket, 0, _AF_NETLINK),
        "bpf": (bpf, 0, None),
        "clone3": (435, 0, None),
    }[what]
    code = [(_LDW, 0, 0, 0), (_JEQ, 0, 1 if value is None else 3, number)]
    if value is not None:
        code += [(_LDW, 0, 0, 16 + 8 * argument), (_JEQ, 0, 1, value)]
    says = errno.ENOSYS if what == "clone3" else errno.EPERM
    code += [(_RET, 0, 0, _REFUSE | says), (_RET, 0, 0, _ALLOW)]
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
