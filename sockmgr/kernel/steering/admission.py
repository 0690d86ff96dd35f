"""Which handshakes may begin, and how long they may take, at one listening TCP socket."""

from __future__ import annotations

import socket

from sockmgr.kernel.steering import classic

_BIND_TO_INTERFACE = 62  # SO_BINDTOIFINDEX, asm-generic/socket.h
_NO_INTERFACE = 2**31 - 1


def refuse_handshakes(queue: socket.socket) -> None:
    """Let no handshake begin at this TCP socket any more; those that have begun go on.

    Who tries is not answered, and tries again (tcp(7), tcp_syn_retries).
    """
    classic.put_filter(queue, classic.DROP_SYN)


def reject_handshakes(queue: socket.socket) -> None:
    """Have the kernel answer by RST who begins a handshake; what has come is there to be accepted.

    Bound to an interface that is not there, the socket is found by no SYN. It needs Linux 5.7 or
    CAP_NET_RAW, and to undo it CAP_NET_RAW. Raises OSError.
    """
    queue.setsockopt(socket.SOL_SOCKET, _BIND_TO_INTERFACE, _NO_INTERFACE)


def admit_handshakes(queue: socket.socket) -> None:
    """Undo refuse_handshakes()."""
    classic.remove_filter(queue)


def shorten_handshakes(queue: socket.socket) -> None:
    """Give up half-open handshakes of this TCP queue after 3 s instead of 63 s."""
    # TCP_SYNCNT acts on entries that exist, too: inet_csk_listen's max_syn_ack_retries
    queue.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)


def restore_handshakes(queue: socket.socket) -> None:
    """Undo shorten_handshakes(). The option cannot be unset, so the default is written."""
    try:
        with open("/proc/sys/net/ipv4/tcp_synack_retries", encoding="ascii") as file:  # noqa: PTH123
            retries = int(file.read())
    except FileNotFoundError:  # an unprivileged network namespace may hide it
        retries = 5
    queue.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, max(1, retries))
