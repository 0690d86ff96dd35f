"""Who is seen to wait for connections: programs of many styles, and some that only look so."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sockmgr.kernel.procfs import descendants
from sockmgr.kernel.readiness import accepting, describe
from tests.helpers.children import Child, python, running, wait_until

HERE = str(Path.cwd())

PRELUDE = """
import asyncio, os, select, selectors, signal, socket, sys, threading, time
s = socket.socket(fileno=3)
"""

# Each waits for connections on descriptor 3 once it has been told to by a line on descriptor 4.
GATE = "print('loaded'); os.read(4, 1)\n"
WAITING = {
    "accept": GATE + "s.setblocking(True); s.accept()",
    "accept with a timeout": GATE + "s.settimeout(600); s.accept()",
    "accept of a duplicate": GATE + "s = s.dup(); s.setblocking(True); s.accept()",
    "poll": "p = select.poll(); p.register(4, 1); p.register(s, select.POLLIN)\n"
    + GATE
    + "p.unregister(4); p.poll()",
    "select": GATE + "r, w = os.pipe(); select.select([r, s], [], [])",
    "select beyond 64": GATE + "os.dup2(3, 777); select.select([777], [], [])",
    "epoll": "e = select.epoll(); e.register(s, select.EPOLLIN)\n" + GATE + "e.poll()",
    "epoll, edges, exclusive": "e = select.epoll()\n"
    "e.register(s, select.EPOLLIN | select.EPOLLEXCLUSIVE | select.EPOLLET)\n" + GATE + "e.poll()",
    "nested epoll": "e, f, g = select.epoll(), select.epoll(), select.epoll()\n"
    "e.register(s); f.register(e); g.register(f)\n" + GATE + "g.poll()",
    "asyncio": GATE + "async def main():\n"
    "    await (await asyncio.start_server(lambda r, w: None, sock=s)).serve_forever()\n"
    "asyncio.run(main())",
    "a thread": GATE + "s.setblocking(True)\n"
    "t = threading.Thread(target=s.accept); t.start(); t.join()",
    "a forked child": GATE + "s.setblocking(True)\n"
    "pid = os.fork()\n"
    "s.accept() if pid == 0 else os.waitpid(pid, 0)",
    "a child forked by a thread": GATE + "s.setblocking(True)\n"
    "def work():\n"
    "    pid = os.fork()\n"
    "    s.accept() if pid == 0 else os.waitpid(pid, 0)\n"
    "t = threading.Thread(target=work); t.start(); t.join()",
    "an epoll inherited over a fork": "e = select.epoll(); e.register(s)\n"
    + GATE
    + "pid = os.fork()\n"
    "e.poll() if pid == 0 else os.waitpid(pid, 0)",
}


@contextlib.contextmanager
def listener(kind: str, tmp_path: Path) -> Iterator[tuple[socket.socket, frozenset[int]]]:
    if kind == "tcp":
        sock = socket.create_server(("127.0.0.1", 0))
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "listener"))
        sock.listen()
    with sock:
        yield sock, frozenset({os.fstat(sock.fileno()).st_ino})


@contextlib.contextmanager
def gate() -> Iterator[tuple[int, Callable[[], object]]]:
    reader, writer = os.pipe()
    try:
        yield reader, lambda: os.write(writer, b"\n")
    finally:
        os.close(reader)
        os.close(writer)


def asleep(pid: int) -> bool:
    """Tell whether the main thread of `pid` sleeps, and not just in printing its line."""
    call = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    return call not in ("running", "1" if platform.machine() == "x86_64" else "64")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("style", WAITING)
def test_a_program_is_ready_when_it_waits_and_not_while_it_loads(
    style: str, kind: str, tmp_path: Path
) -> None:
    with listener(kind, tmp_path) as (sock, inodes), gate() as (closed, open_gate):
        program = PRELUDE + WAITING[style]
        with python(program, fds=[sock.fileno(), closed]) as child:
            assert child.line() == "loaded"
            for _ in range(20):
                assert accepting(child.pid, inodes) == frozenset()
            open_gate()
            wait_until(lambda: accepting(child.pid, inodes) == inodes, what="accepting")


NOT_WAITING = {
    "only holds the descriptor": "print('here'); signal.pause()",
    "registers it and sleeps elsewhere": "e = select.epoll(); e.register(s)\n"
    "print('here'); signal.pause()",
    "waits for another event on it": "e = select.epoll(); e.register(s, select.EPOLLRDHUP)\n"
    "print('here'); e.poll()",
    "polls it for writing": "p = select.poll(); p.register(s, select.POLLOUT | select.POLLPRI)\n"
    "r, w = os.pipe(); p.modify(s, select.POLLPRI); print('here'); p.poll()",
    "selects it for writing only": "r, w = os.pipe(); print('here'); select.select([r], [], [s])",
    "accepts from another socket": "o = socket.create_server(('127.0.0.1', 0))\n"
    "print('here'); o.accept()",
    "waits in an epoll of others": "e, f = select.epoll(), select.epoll(); e.register(s)\n"
    "r, w = os.pipe(); f.register(r); print('here'); f.poll()",
    "has disabled it": "e = select.epoll(); e.register(s, select.EPOLLIN); e.modify(s, 0)\n"
    "print('here'); e.poll()",
    "is busy": "print('here')\nwhile True: pass",
}


@pytest.mark.parametrize("style", NOT_WAITING)
def test_a_program_that_does_something_else_is_not_ready(style: str, tmp_path: Path) -> None:
    with (
        listener("tcp", tmp_path) as (sock, inodes),
        python(PRELUDE + NOT_WAITING[style], fds=[sock.fileno()]) as child,
    ):
        assert child.line() == "here"
        if style != "is busy":
            wait_until(lambda: asleep(child.pid), what="asleep")
        for _ in range(50):
            assert accepting(child.pid, inodes) == frozenset()


def test_only_those_listeners_count_that_are_waited_on() -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        inodes = [os.fstat(sock.fileno()).st_ino for sock in socks]
        program = "import select; select.select([3, 5], [], [])"
        child = stack.enter_context(python(program, fds=[sock.fileno() for sock in socks]))
        wait_until(lambda: accepting(child.pid, frozenset(inodes)), what="accepting")
        assert accepting(child.pid, frozenset(inodes)) == {inodes[0], inodes[2]}
        assert accepting(child.pid, frozenset(inodes[1:2])) == frozenset()


def test_listeners_of_several_processes_add_up() -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        inodes = frozenset(os.fstat(sock.fileno()).st_ino for sock in socks)
        program = PRELUDE + "socket.socket(fileno=4 if os.fork() else 3).accept()"
        child = stack.enter_context(python(program, fds=[sock.fileno() for sock in socks]))
        wait_until(lambda: accepting(child.pid, inodes) == inodes, what="accepting")


@pytest.mark.parametrize("call", ["s.recv(9)", "s.recvmsg(9)", "select.select([s], [], [])"])
def test_a_datagram_server_is_ready_when_it_waits_to_receive(call: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        inodes = frozenset({os.fstat(sock.fileno()).st_ino})
        with python(PRELUDE + "s.setblocking(True)\n" + call, fds=[sock.fileno()]) as child:
            wait_until(lambda: accepting(child.pid, inodes) == inodes, what="receiving")


def test_a_program_that_was_stopped_and_continued_is_still_seen(tmp_path: Path) -> None:
    program = PRELUDE + "s.settimeout(600); s.accept()"
    with (
        listener("tcp", tmp_path) as (sock, inodes),
        python(program, fds=[sock.fileno()]) as child,
    ):
        wait_until(lambda: accepting(child.pid, inodes), what="accepting")
        child.process.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        child.process.signal(signal.SIGCONT)
        wait_until(lambda: accepting(child.pid, inodes), what="accepting again")


IO_URING = """
import ctypes, mmap, os, struct
libc = ctypes.CDLL(None)
params = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 4, params)  # io_uring_setup(2)
if ring < 0:
    print("impossible"); os._exit(0)
tail, mask, entries, flags, dropped, array = struct.unpack_from("6I", params, 44)
queue = mmap.mmap(ring, array + 16, offset=0)
calls = mmap.mmap(ring, 4 * 64, offset=0x10000000)
def submit(op, fd):
    calls[0:64] = struct.pack("BBHiQQIIQ24x", op, 0, 0, fd, 0, 0, {events}, 0, 1)
    queue[array : array + 4] = struct.pack("I", 0)
    queue[tail : tail + 4] = struct.pack("I", 1)
    print("submitted")
    libc.syscall(426, ring, 1, 1, 1, None, 0)  # io_uring_enter(2), until one is done
submit({op}, {fd})
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program's numbers are of x86-64")
@pytest.mark.parametrize(("op", "fd", "ready"), [(13, 3, True), (6, 4, False)])
def test_an_accept_that_is_pending_on_an_io_uring_counts(
    op: int, fd: int, ready: bool, tmp_path: Path
) -> None:
    program = IO_URING.format(op=op, fd=fd, events=0 if ready else 1)
    with (
        listener("tcp", tmp_path) as (sock, inodes),
        gate() as (closed, _),
        python(program, fds=[sock.fileno(), closed]) as child,
    ):
        if child.line() == "impossible":
            pytest.skip("no io_uring here")
        wait_until(lambda: asleep(child.pid), what="asleep in io_uring_enter")
        if ready:
            wait_until(lambda: accepting(child.pid, inodes) == inodes, what="accepting")
        assert bool(accepting(child.pid, inodes)) == ready


# --- Processes that come and go ----------------------------------------------------------------


def test_a_look_at_a_process_that_ends_is_no_error(tmp_path: Path) -> None:
    program = PRELUDE + (
        "print('here')\n"
        "while True:\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
    )
    with listener("tcp", tmp_path) as (sock, inodes):
        with python(program, fds=[sock.fileno()]) as child:
            child.line()
            for _ in range(300):
                assert accepting(child.pid, inodes) == frozenset()
                assert describe(child.pid, inodes)
        gone = child.pid
        assert accepting(gone, inodes) == frozenset()
        assert descendants(gone) == []
        assert "has ended" in describe(gone, inodes)


def test_descendants_are_found_at_every_depth_parents_first() -> None:
    program = PRELUDE.replace("s = socket.socket(fileno=3)", "") + (
        "for depth in range(3):\n    if os.fork(): break\nelse: print('deep')\nsignal.pause()"
    )
    with python(program) as child:
        assert child.line() == "deep"
        found = descendants(child.pid)
        parents = [
            int(Path(f"/proc/{p}/stat").read_text().rsplit(")")[-1].split()[1]) for p in found
        ]
        assert parents == [child.pid, *found[:-1]]
        assert len(found) == 3


# --- Words -------------------------------------------------------------------------------------


def test_the_description_says_what_was_seen_instead(tmp_path: Path) -> None:
    def described(program: str, fds: list[int]) -> str:
        with python(PRELUDE.replace("fileno=3", "") + program, fds=fds) as child:
            assert child.line() == "here"
            wait_until(lambda: asleep(child.pid), what="asleep")
            return describe(child.pid, inodes)

    with listener("tcp", tmp_path) as (sock, inodes):
        text = described("r, w = os.pipe(); print('here'); os.read(r, 1)", [sock.fileno()])
        assert "1 process with 1 thread: 1 in read" in text
        assert "1 of 1 listener not waited on, though held open" in text
        text = described("e = select.epoll(); print('here'); e.poll()", [])
        assert "1 in epoll_" in text
        assert "1 of 1 listener not waited on, 1 not even held by any process" in text
        text = described("print('here'); socket.socket(fileno=3).accept()", [sock.fileno()])
        assert "every listener is waited on now" in text


FULL_PIPE = "r, w = os.pipe(); os.set_blocking(w, False)\n" + (
    "while True:\n    try: os.write(w, b'x' * 4096)\n    except BlockingIOError: break\n"
    "os.set_blocking(w, True)\n"
)
STUCK = {
    "write": FULL_PIPE + "print('here'); os.write(w, b'x' * 4096)",
    "writev": FULL_PIPE + "print('here'); os.writev(w, [b'x', b'x' * 4096])",
    "sendto": "a, b = socket.socketpair(); print('here')\nwhile True: a.send(b'x' * 65536)",
    "futex": "import _thread; lock = _thread.allocate_lock(); lock.acquire()\n"
    "print('here'); lock.acquire()",
    "flock": "import fcntl; name = '/proc/self/cmdline'; a, b = open(name), open(name)\n"
    "fcntl.flock(a, fcntl.LOCK_EX); print('here'); fcntl.flock(b, fcntl.LOCK_EX)",
}


@pytest.mark.parametrize("call", STUCK)
def test_a_call_that_a_worker_is_stuck_in_is_called_by_its_name(call: str, tmp_path: Path) -> None:
    with (
        listener("tcp", tmp_path) as (sock, inodes),
        python(PRELUDE + STUCK[call], fds=[sock.fileno()]) as child,
    ):
        assert child.line() == "here"
        wait_until(lambda: f"1 in {call}" in describe(child.pid, inodes), what=f"in {call}")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_what_may_not_be_looked_at_is_told_as_such(tmp_path: Path) -> None:
    program = PRELUDE + "s.setblocking(True); s.accept()"
    with (
        listener("tcp", tmp_path) as (sock, inodes),
        python(program, fds=[sock.fileno()]) as child,
    ):
        wait_until(lambda: accepting(child.pid, inodes), what="accepting")
        answer = tmp_path / "answer"
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException), answer.open("w") as file:
                os.setuid(65534)
                seen = [list(accepting(child.pid, inodes)), describe(child.pid, inodes)]
                json.dump(seen, file)
            os._exit(0)
        os.waitpid(pid, 0)
        found, text = json.loads(answer.read_text())
    assert found == []
    assert "not permitted to see" in text


# --- Servers -----------------------------------------------------------------------------------

APP = """
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
NODE = "require('http').createServer((q, r) => r.end('ok')).listen({fd: 3})"
BIN = Path(sys.executable).parent
SERVERS = {
    "uvicorn": [f"{BIN}/uvicorn", "--fd", "3", "app:asgi"],
    "uvicorn, two workers": [f"{BIN}/uvicorn", "--fd", "3", "--workers", "2", "app:asgi"],
    "gunicorn": [f"{BIN}/gunicorn", "--no-control-socket", "app:wsgi"],
    "gunicorn, gthread": [f"{BIN}/gunicorn", "--no-control-socket", "-k", "gthread", "app:wsgi"],
    "gunicorn, preload": [f"{BIN}/gunicorn", "--no-control-socket", "--preload", "app:wsgi"],
    "hypercorn": [f"{BIN}/hypercorn", "-w", "0", "--bind", "fd://3", "app:asgi"],
    "uwsgi": [f"{BIN}/uwsgi", "--master", "-p", "2", "--protocol", "http", "-w", "app:wsgi"],
    "node": [shutil.which("node") or "", "-e", NODE],
}


def answer(sock: socket.socket) -> bytes:
    """Return the body that the server behind this listener answers with."""
    with socket.socket(sock.family) as client:
        client.settimeout(10)
        client.connect(sock.getsockname())
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        response = http.client.HTTPResponse(client)
        response.begin()
        with response:
            return response.read()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_seen_waiting_answers(server: str, kind: str, tmp_path: Path) -> None:
    argv = SERVERS[server]
    if not Path(argv[0]).is_file():
        pytest.skip(f"{server} is not installed")
    (tmp_path / "app.py").write_text(APP)
    activated = "gunicorn" in server or server == "uwsgi"
    env = os.environ | {"PYTHONPATH": str(tmp_path)} | ({"LISTEN_FDS": "1"} if activated else {})
    more = {"env": env, "cwd": str(tmp_path), "set_listen_pid": activated}
    with (
        listener(kind, tmp_path) as (sock, inodes),
        running(argv, fds=[sock.fileno()], **more) as child,
    ):
        wait_until(lambda: accepting(child.pid, inodes) == inodes, what=f"{server} accepting")
        assert answer(sock) == b"ok"
        _stop(child)


def _stop(child: Child) -> None:
    """Let a server with several processes end them itself, so that none is left."""
    family = descendants(child.pid)
    child.process.signal_group(signal.SIGKILL)
    for pid in family:
        wait_until(lambda pid=pid: _dead(pid), what="the family's end")


def _dead(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
