"""`python prefork.py PORT [FAULT…]`: a server with two workers, which a test can make hostile.

It answers who it is and the version in `version.py`; HUP makes it read that anew, TERM ends it
gracefully. After a HUP each of its FAULTs is done to some requests.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs

PORT, FAULTS = int(sys.argv[1]), sys.argv[2:]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
NUMBERS = itertools.count()
is_reloaded = threading.Event()
stopping = threading.Event()


def version() -> str:
    return re.findall(r'VERSION = "(\d+)"', Path("version.py").read_text())[0]


def opened() -> socket.socket:
    return socket.create_server(("127.0.0.1", PORT), backlog=128)


def answer(sock: socket.socket, head: bytes, body: bytes) -> None:
    path, _, query = head.split(b" ")[1].decode().partition("?")
    if path == "/slow":
        time.sleep(float(parse_qs(query)["s"][0]))
    said: dict[str, object] = {"pid": os.getpid(), "version": serving[0]}
    if path == "/upload":
        said["received"] = len(body)
    text = json.dumps(said).encode()
    if path == "/stream":
        text += b"\nEND\n"
    sock.sendall(HEAD % len(text) + text)


def spoil(sock: socket.socket, fault: str, number: int) -> bool:
    """Do a fault to the request that was just read; False if this one cannot have it."""
    text = b'{"pid": 1, "version": "1"}'
    match fault:
        case "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        case "cut":
            sock.sendall(HEAD % len(text) + text[:9])
        case "race" if number == 0:
            return False
        case "hang":
            time.sleep(3)
        case "503":
            sock.sendall(b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n")
        case "wrong":
            sock.sendall(HEAD % 2 + b"hi")
        case "old":
            sock.sendall(HEAD % len(text) + text)
        case _:
            pass
    return True


def serve(sock: socket.socket) -> None:
    """Answer the requests of one connection."""
    with sock:
        for number in itertools.count():
            got = b""
            while b"\r\n\r\n" not in got:
                data = sock.recv(65536)
                if not data:
                    return
                got += data
            head, _, body = got.partition(b"\r\n\r\n")
            length = int((re.findall(rb"(?i)content-length: (\d+)", head) or [b"0"])[0])
            while len(body) < length:
                body += sock.recv(65536)
            if is_reloaded.is_set() and (count := next(NUMBERS)) < 8 * len(FAULTS):
                fault = FAULTS[count // 2 % len(FAULTS)] if count % 2 else ""
                if fault and spoil(sock, fault, number):
                    return
            answer(sock, head, body)
            if b"Connection: close" in head or stopping.is_set():
                return


def work(listener: socket.socket) -> None:
    """Be one worker."""
    signal.signal(signal.SIGHUP, reload)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threads: list[threading.Thread] = []
    listener.settimeout(0.05)
    while not stopping.is_set():
        try:
            sock, _ = listener.accept()
        except TimeoutError:
            continue
        sock.settimeout(5)
        threads.append(threading.Thread(target=handle, args=[sock]))
        threads[-1].start()
    for thread in threads:
        thread.join()
    os._exit(0)


def handle(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        serve(sock)


def reload(*_: object) -> None:
    is_reloaded.set()
    if "end" in FAULTS:
        os._exit(3)
    serving[0] = version()


serving = [version()]
listener = opened()
workers: dict[int, None] = {}


def start() -> None:
    pid = os.fork()
    if pid == 0:
        work(listener)
    workers[pid] = None


def to_all(number: int) -> None:
    for pid in workers:
        os.kill(pid, number)
    if number == signal.SIGHUP:
        reload()
    if number == signal.SIGTERM:
        stopping.set()


signal.signal(signal.SIGHUP, lambda *_: to_all(signal.SIGHUP))
signal.signal(signal.SIGTERM, lambda *_: to_all(signal.SIGTERM))
for _ in range(2):
    start()
while workers:
    pid, _ = os.wait()
    del workers[pid]
    if not stopping.is_set():
        start()
