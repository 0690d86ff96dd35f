"""Read the memory of other processes for the manager (manager/workers/memory_reader).

A program of its own, without the rest of the package, because reading may block forever. Descriptor
3 is a socket. Each request carries a descriptor of /proc/PID/mem, and the answer has the bytes. The
program ends when the manager closes its end of the socket.
"""

import os
import socket
import struct

REQUEST = struct.Struct("@3Q")  # number, address, size
ANSWER = struct.Struct("@Q")  # number; the bytes follow
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
