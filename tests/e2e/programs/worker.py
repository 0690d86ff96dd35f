"""A server of the standard library alone that misbehaves as it is told. It runs as a program.

The file `fault` in its directory says what it does wrong, the file `version` what it answers. A
fault of START happens before it accepts; one of LATER happens right after its first answer, or
after the answer to `GET /do/FAULT`. One request a connection, one connection at a time; TERM ends
it once the request in hand is answered. It imports little: many of it are started.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

FIRST_FD = 3  # sd_listen_fds(3)
FLOOD = b"the worker talks and talks, and nobody has asked it to do so at all\n" * 900


def read(name: str, default: str) -> str:
    with contextlib.suppress(FileNotFoundError), open(name) as file:  # noqa: PTH123 - see imports
        return file.read().strip()
    return default


def say(text: str) -> None:
    os.write(2, text.encode() + b"\n")


def sleep_for_ever() -> None:
    while True:
        time.sleep(3600)


# --- Faults: before it accepts -----------------------------------------------------------------


def exits(_: socket.socket) -> None:
    say("cannot reach the database")
    say("giving up")
    os._exit(7)


def says_much_and_exits(_: socket.socket) -> None:
    rest = b"x" * 10_000_000  # one line, and no newline
    while rest:
        rest = rest[os.write(2, rest) :]
    os._exit(7)


def floods_and_exits(_: socket.socket) -> None:
    for _ in range(100):
        os.write(2, FLOOD)
    say("these were my last words")
    os._exit(7)


def hangs(_: socket.socket) -> None:
    sleep_for_ever()


def stops(_: socket.socket) -> None:
    say("about to be stopped")
    os.kill(os.getpid(), signal.SIGSTOP)


def crashes(_: socket.socket) -> None:
    import ctypes  # noqa: PLC0415 - the others start faster without

    say("about to crash")
    ctypes.string_at(0)


def daemonises(_: socket.socket) -> None:
    """The double fork of old: daemon(7), "SysV Daemons"."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def daemonises_often(_: socket.socket) -> None:
    """Forks go on while the worker ends, so one look at what it leaves cannot see them all."""
    me = os.getpid()
    read_end, write_end = os.pipe()
    for _ in range(10):
        if os.fork() == 0:
            os.setsid()
            os.write(write_end, b"x")
            while os.getppid() == me:
                pass
            for _ in range(5):
                if os.fork():
                    os._exit(0)
            sleep_for_ever()
    for _ in range(10):
        os.read(read_end, 1)
    os._exit(7)


def closes(listener: socket.socket) -> None:
    """Serves nobody any more, and goes on living until it is told to stop."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    listener.close()
    sleep_for_ever()


def is_deaf(_: socket.socket) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def shrinks(listener: socket.socket) -> None:
    listener.listen(5)


def locks(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER, socket(7)


def gives_away(listener: socket.socket) -> None:
    """Gives its listener to a process that is none of its descendants."""
    with socket.socket(socket.AF_UNIX) as receiver:
        receiver.connect("receiver.sock")
        socket.send_fds(receiver, [b"x"], [listener.fileno()])


def connects_away(listener: socket.socket) -> None:
    """Makes a socket of it that can never listen again."""
    port = listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.setblocking(True)
    with socket.create_server(("127.0.0.1", 0)) as there:
        listener.connect(there.getsockname())
    say(f"port {port} is of no use any more")


def floods(_: socket.socket) -> None:
    """A child writes as fast as it may, for as long as the worker lives."""
    if os.fork() == 0:
        while True:
            os.write(2, FLOOD)


def leaves_zombies(_: socket.socket) -> None:
    """Children that nobody waits for, and orphans of which the manager becomes the parent."""
    for _ in range(5):
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)


def leaves_child(listener: socket.socket) -> None:
    if os.fork() == 0:
        serve([listener], "child")


def leaves_daemon(listener: socket.socket) -> None:
    if os.fork() == 0:
        os.setsid()
        serve([listener], "daemon")


def notify(*messages: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        for message in messages:
            sock.sendto(message, os.environ["NOTIFY_SOCKET"])


def babbles(_: socket.socket) -> None:
    notify(b"\xff\xfe", b"READY", b"=1", b"", b"READY=1\0", b"READY=1\n" + b"X=" + b"x" * 60_000)
    notify(b"STATUS=loading", b"READY=0", b"ready=1")


def says_ready(_: socket.socket) -> None:
    notify(b"READY=1")


def waits(_: socket.socket) -> None:
    """Reads a FIFO before it accepts, and tells nobody."""
    read("go", "")


def waits_for_go(_: socket.socket) -> None:
    """Reads a FIFO, so that a test decides when it goes on."""
    read("go", "")
    notify(b"READY=1")


# --- Faults: after an answer -------------------------------------------------------------------


def dies(_: socket.socket) -> None:
    say("died in probation")
    os._exit(9)


def shuts_down(listener: socket.socket) -> None:
    listener.shutdown(socket.SHUT_RDWR)


def unlinks(listener: socket.socket) -> None:
    os.unlink(listener.getsockname())  # noqa: PTH108 - see imports


START: dict[str, Callable[[socket.socket], None]] = {
    "babbles": babbles, "closes": closes, "crashes": crashes, "daemonises": daemonises,
    "daemonises often": daemonises_often, "exits": exits, "floods": floods,
    "floods and exits": floods_and_exits, "gives away": gives_away, "hangs": hangs,
    "is deaf": is_deaf, "leaves child": leaves_child, "leaves daemon": leaves_daemon,
    "leaves zombies": leaves_zombies, "locks": locks, "says much and exits": says_much_and_exits,
    "says ready": says_ready, "shrinks": shrinks, "stops": stops, "waits": waits,
    "waits for go": waits_for_go,
}  # fmt: skip
LATER: dict[str, Callable[[socket.socket], None]] = {
    "close": closes, "connect": connects_away, "die": dies, "shrink": shrinks,
    "shutdown": shuts_down, "unlink": unlinks,
}  # fmt: skip


# --- The server --------------------------------------------------------------------------------


def answer(client: socket.socket, version: str) -> str:
    """Answer one request; return its path."""
    client.settimeout(10)
    request = b""
    while b"\r\n\r\n" not in request:
        piece = client.recv(65536)
        if not piece:
            return ""
        request += piece
    body = b'{"pid": %d, "version": "%s"}' % (os.getpid(), version.encode())
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    client.sendall(head + body)
    return request.split(b" ", 2)[1].decode()


def serve(listeners: list[socket.socket], version: str, fault: str = "") -> None:
    """Accept until TERM."""
    wake_read, wake_write = socket.socketpair()
    wake_write.setblocking(False)
    signal.set_wakeup_fd(wake_write.fileno())
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, lambda *_: None)  # the wake-up socket tells
    for listener in listeners:
        listener.setblocking(False)
    while True:
        ready, _, _ = select.select([*listeners, wake_read], [], [])
        if wake_read in ready:
            with contextlib.suppress(OSError):
                LATER.get(read("at_end", ""), lambda _: None)(listeners[0])
            sys.exit(0)
        for listener in ready:
            serve_one(listener, version, fault)


def serve_one(listener: socket.socket, version: str, fault: str) -> None:
    try:
        client, _ = listener.accept()
    except OSError:  # a sibling was faster, or somebody shut it down
        return
    path = ""
    with client, contextlib.suppress(OSError):
        path = answer(client, version)
    LATER.get(path.removeprefix("/do/"), LATER.get(fault, lambda _: None))(listener)


def main() -> None:
    """Do what `fault` says, then serve."""
    fault, version = read("fault", "none"), read("version", "1")
    fds = range(FIRST_FD, FIRST_FD + int(os.environ["LISTEN_FDS"]))
    listeners = [socket.socket(fileno=fd) for fd in fds]
    START.get(fault, lambda _: None)(listeners[0])
    serve(listeners, version, fault)


if __name__ == "__main__":
    main()
