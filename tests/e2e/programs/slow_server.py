"""A server on descriptor 3, one request at a time: it sleeps for as long as the path says.

TERM: it answers whom it has, and ends. It prints what it does.
"""

import os
import signal
import socket
import sys
import time

stopping = False


def stop(*_: object) -> None:
    global stopping  # noqa: PLW0603
    stopping = True
    print(f"told {os.getpid()}", flush=True)


signal.signal(signal.SIGTERM, stop)
listener = socket.socket(fileno=3)
listener.settimeout(0.02)
print(f"serving {os.getpid()} {' '.join(sys.argv[1:])}", flush=True)
while not stopping:
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        continue
    with connection:
        request = connection.recv(1000)
        print(f"asked {os.getpid()}", flush=True)
        time.sleep(float(request.split()[1].decode().removeprefix("/")))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
print(f"finished {os.getpid()}", flush=True)
