"""Reads the memory of other processes for the manager, piece by piece (memory_reader.py).

A program of its own, without the rest of the package: descriptor 3 is a socket. Each request on it
carries a descriptor of /proc/PID/mem, and each answer what was read. The program ends when the
manager closes its end of the socket.
"""

import os
import socket
import struct

REQUEST = struct.Struct("@3Q")  # number, address, size
ANSWER = struct.Struct("@Q")  # number; what was read follows
HELLO = b"reads"


def main() -> None:
    """Answer requests until the manager closes the socket."""
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
                except OSError:  # the process has ended, or has nothing mapped there any more
                    found = b""
                os.close(fd)
            sock.send(ANSWER.pack(number) + found)


if __name__ == "__main__":
    main()
