"""A server that answers each datagram with its pid and what it said. It runs as a program.

TERM ends it at once: whoever sends it must have seen that no datagram waits.
"""

from __future__ import annotations

import os
import socket

FIRST_FD = 3  # sd_listen_fds(3)


def main() -> None:
    """Answer until TERM."""
    with socket.socket(fileno=FIRST_FD) as sock:
        sock.setblocking(True)
        while True:
            data, sender = sock.recvfrom(2048)
            sock.sendto(b"%d %s" % (os.getpid(), data), sender)


if __name__ == "__main__":
    main()
