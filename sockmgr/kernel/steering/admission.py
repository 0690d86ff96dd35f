"""Set for one listening TCP socket whether handshakes may begin, and how long they may take."""

from __future__ import annotations

import socket

from sockmgr.kernel.steering import classic

_BIND_TO_INTERFACE = 62  # SO_BINDTOIFINDEX, asm-generic/socket.h
_NO_INTERFACE = 2**31 - 1


def refuse_handshakes(queue: socket.socket) -> None:
    """Drop every SYN at this TCP socket; handshakes that have begun go on.

    Clients get no answer, so they try again (tcp(7), tcp_syn_retries).
    """
    classic.put_filter(queue, classic.DROP_SYN)


def reject_handshakes(queue: socket.socket) -> None:
    """Have the kernel answer each SYN by RST; connections that wait can still be accepted.

    The socket is bound to an interface that does not exist, so that no SYN matches it. This takes
    Linux 5.7 or CAP_NET_RAW; undoing it takes CAP_NET_RAW. Raises OSError.
    """
    queue.setsockopt(socket.SOL_SOCKET, _BIND_TO_INTERFACE, _NO_INTERFACE)


def admit_handshakes(queue: socket.socket) -> None:
    """Undo refuse_handshakes()."""
    classic.remove_filter(queue)


def shorten_handshakes(queue: socket.socket) -> None:
    """Give up half-open handshakes of this TCP queue after 3 s instead of 63 s."""
    # It holds also for handshakes that have begun: reqsk_timer_handler() in the kernel's
    # net/ipv4/inet_connection_sock.c reads icsk_syn_retries each time.
    queue.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)


def restore_handshakes(queue: socket.socket) -> None:
    """Undo shorten_handshakes(): set the default, since the option cannot be unset."""
    try:
        with open("/proc/sys/net/ipv4/tcp_synack_retries", encoding="ascii") as file:  # noqa: PTH123
            retries = int(file.read())
    except OSError:  # a container without this part of /proc/sys; no descriptor is left (EMFILE)
        retries = 5
    queue.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, max(1, retries))
