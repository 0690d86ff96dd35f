"""Reads the memory of other processes for the manager, piece by piece (memory_reader.py).

A program of its own, without the rest of the package: descriptor 3 is a socket, on which requests
come with a descriptor of /proc/PID/mem, and answers go. It ends at the end of the socket.
"""

import os
import socket
import struct

REQUEST = struct.Struct("@3Q")  # number, address, size
ANSWER = struct.Struct("@Q")  # number; what was read follows
HELLO = b"reads"


def main() -> None:
    """Answer until nobody asks."""
    with socket.socket(fileno=3) as sock:
        sock.send(HELLO)
        while True:
            data, fds, _, _ = socket.recv_fds(sock, REQUEST.size, 1)
            if not data:
                return
            number, address, size = REQUEST.unpack(data)
            found = b""
            for fd in fds:
                try:
                    found = os.pread(fd, size, address)
                except OSError:  # it has ended, or has nothing there any more
                    found = b""
                os.close(fd)
            sock.send(ANSWER.pack(number) + found)


if __name__ == "__main__":
    main()
