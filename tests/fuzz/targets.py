"""What is fuzzed: functions of bytes, which raise nothing unless something is wrong.

The errors that are ours are expected and dropped here. Files of `corpus/NAME` are where it begins.
"""

from __future__ import annotations

import array
import contextlib
import functools
import hashlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from sockmgr.api import wire
from sockmgr.config import config, env_file
from sockmgr.dev import failure, page
from sockmgr.dev.page import Subject
from sockmgr.dev.rules import Rules
from sockmgr.doctor import proxy, socket_units, unit_files, units
from sockmgr.doctor.unit_files import Installed, UnitFile
from sockmgr.errors import SockmgrError
from sockmgr.fleet import snapshot
from sockmgr.fleet.messages import Stop, StopNow, Tick, WorkerExited
from sockmgr.fleet.restoring import restore
from sockmgr.init import procfile
from sockmgr.init.draft import draft
from sockmgr.init.facts import Project
from sockmgr.init.foreign import readers, services
from sockmgr.init.foreign.form import Source
from sockmgr.kernel.notify import NotifySocket
from sockmgr.kernel.rights import close_all
from sockmgr.programs import keeper
from sockmgr.programs.dispatcher.channel import Channel
from sockmgr.programs.dispatcher.ledger import Forged, Ledger, Report
from sockmgr.terminal.format import span
from sockmgr.worker import moved, proxy_protocol
from sockmgr.worker.moved import MessageError
from sockmgr.worker.proxy_protocol import HeaderError
from tests.config.texts import FULL

TARGETS: dict[str, Callable[[bytes], None]] = {}
PROGRAMS = frozenset({"gunicorn", "uvicorn", "uwsgi", "node"})
FOREIGN = {
    "supervisord.conf": "supervisord", "circus.ini": "circus", "web.service": "systemd",
    "ecosystem.config.js": "pm2", "Procfile": "procfile", "gunicorn.conf.py": "gunicorn",
    "uwsgi.ini": "uwsgi", "unit.json": "unit",
}  # fmt: skip
CONFIG = config.parse(
    b'[listen]\nhttp = "tcp://127.0.0.1:80"\nadmin = "unix:///run/shop/admin.sock"\n'
    b'[service.web]\ncommand = ["x"]\nlisten = ["http", "admin"]\n',
    file="sockmgr.toml",
)


def target(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
    TARGETS[function.__name__] = function
    return function


# --- Sockets -------------------------------------------------------------------------------------


@target
def control(data: bytes) -> None:
    """A call at the control socket, and the answer to one that cannot be understood."""
    call = wire.read_call(data)
    if call is None:
        return
    try:
        _, ask = wire.read_ask(call)
    except wire.Unanswerable as error:
        wire.write_error(error)
    else:
        again = wire.read_call(wire.write_call(ask)[:-1])
        assert again
        assert wire.read_ask(again)[1] == ask


NOTIFY = NotifySocket.abstract()
NAME = "\0" + NOTIFY.address[1:]
SAYS = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


@target
def notify(data: bytes) -> None:
    """Datagrams at the notify socket, one for each piece, with descriptors where it says so."""
    for piece in data.split(b"\xff")[:8]:
        fds = array.array("i", [0] * (piece[0] % 3) if b"" < piece[:1] < b"\x10" else [])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
        SAYS.sendmsg([piece], rights, 0, NAME)
    while NOTIFY.receive():
        pass
    NOTIFY.receive()


@target
def reports(data: bytes) -> None:
    """What a worker says on its channel, what it leaves there untaken, and the account of it."""
    with contextlib.closing(Channel.create()) as channel, contextlib.ExitStack() as stack:
        theirs = stack.enter_context(socket.socket(fileno=os.dup(channel.theirs)))
        ledger = Ledger(data[0] if data else 0, is_new=bool(data[:1] > b"\x7f"))
        for at in range(1, min(len(data), 400), 33):
            said, kind = data[at + 1 : at + 33], data[at]
            if kind % 4 == 0:
                ledger.ask()
                channel.ask(ledger.asked)
            elif kind % 4 == 1:
                channel.send(
                    [0] * (kind % 5 or 1), said[: kind % 5 or 1].replace(b"\xff", b"") or b"\0"
                )
                ledger.passed += 1
            socket.send_fds(theirs, [said], [0] * (kind % 3))
            with contextlib.suppress(Forged):
                while report := channel.receive():
                    ledger.hear(report)
            if kind % 7 == 0 and (back := channel.take_back()):
                close_all([each.fd for each in back.passed])
                close_all([each.told for each in back.passed if each.told >= 0])


@target
def account(data: bytes) -> None:
    """Reports of the right length with any numbers: an account is never negative."""
    ledger = Ledger(0)
    ledger.ask()
    held = 0
    with contextlib.suppress(Forged):
        for at in range(0, len(data) - 31, 32):
            held += ledger.hear(Report._make(struct.unpack_from("=QQQQ", data, at)))
            assert held >= 0


@target
def given(data: bytes) -> None:
    """What one worker tells the next of a connection that it gives back."""
    with contextlib.suppress(MessageError):
        found = moved.decode(data)
        assert moved.decode(moved.encode(found)) == found


@target
def header(data: bytes) -> None:
    """The PROXY protocol, both versions."""
    for read in (
        lambda: proxy_protocol.text(data),
        lambda: proxy_protocol.binary(data[:4].ljust(4), data[4:]),
    ):
        with contextlib.suppress(HeaderError):
            read()


class _Left(Exception):
    """The keeper would have exited."""


class _Store(keeper.Store):
    def leave(self) -> None:
        raise _Left


NOWHERE = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@target
def keeping(data: bytes) -> None:
    """Requests of two peers of the keeper: a digit (descriptors, and who asks), and the request."""
    store = _Store(NOWHERE, "/nowhere")
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for _, theirs in pairs:
        peer = keeper.socket(fileno=theirs.detach())
        store.peers[peer.fileno()] = peer
    peers = list(store.peers.values())
    with contextlib.suppress(_Left):
        for line in data.split(b"\n")[:20]:
            who = line[:1] >= b"5"
            if peers[who].fileno() < 0:
                continue
            with contextlib.suppress(BlockingIOError):
                pairs[who][0].setblocking(False)
                socket.send_fds(pairs[who][0], [line[1:]], [0] * (line[0] % 5) if line else [])
            while peers[who].fileno() >= 0 and store.hear(peers[who]):
                with contextlib.suppress(BlockingIOError):
                    _, fds, _, _ = socket.recv_fds(pairs[who][0], 256, 253)
                    close_all(fds)
    for fds in (*store.held.values(), store.places, [store.client_process]):
        close_all([fd for fd in fds if fd >= 0])
    for sock in (*store.peers.values(), *(ours for ours, _ in pairs)):
        sock.close()


# --- What the next manager reads -----------------------------------------------------------------


@target
def state(data: bytes) -> None:
    """The body of a state, rightly signed: read whole or not at all, a fleet goes on to its end."""
    for version in (1, snapshot.VERSION):
        checksum = hashlib.sha256(data).hexdigest().encode()
        try:
            found = snapshot.decode(b"sockmgr-state %d 1 %s\n%s" % (version, checksum, data))
        except snapshot.SnapshotError:
            continue
        for service in found.services:
            fleet = restore(service, 100.0)
            for now in (100.0, 103.0, 200.0):
                fleet.handle(Tick(), now)
            for worker in list(fleet.workers()):
                fleet.handle(WorkerExited(worker=worker.id, status=1), 201.0)
            for fact in (Stop(), StopNow()):
                fleet.handle(fact, 202.0)


@target
def signed(data: bytes) -> None:
    """A state with any head."""
    with contextlib.suppress(snapshot.SnapshotError):
        snapshot.decode(data)


# --- Files ---------------------------------------------------------------------------------------


@target
def settings(data: bytes) -> None:
    """A config."""
    with contextlib.suppress(SockmgrError):
        config.parse(data, file="sockmgr.toml")


@target
def variables(data: bytes) -> None:
    """An env file, whose errors show no value."""
    with contextlib.suppress(SockmgrError):
        env_file.parse(data, ".env")


def _project(files: dict[str, str] | None = None) -> Project:
    return Project(directory="shop", files=files or {}, programs=PROGRAMS, root="/srv/shop")


@target
def procfiles(data: bytes) -> None:
    """A Procfile in a project: a config that can be read comes of it."""
    project = _project({"Procfile": data.decode(errors="replace")})
    guess = procfile.guess(project)
    config.parse(draft(guess, "shop").encode(), file="sockmgr.toml")


@target
def foreign(data: bytes) -> None:
    """A file for `init --from`, of the kind that its first byte says: a config, or our error."""
    name = [*FOREIGN][data[0] % len(FOREIGN) if data else 0]
    text, project = data[1:].decode(errors="replace"), _project()
    with contextlib.suppress(SockmgrError):
        found = readers.read(Source(name, text, project))
        config.parse(services.text(found, project, name, "shop").encode(), file="sockmgr.toml")


@target
def unit_texts(data: bytes) -> None:
    """Units that `doctor` reads: a service and a socket, with a NUL between them."""
    first, _, second = data.decode(errors="replace").partition("\0")
    service = unit_files.of_text("shop.service", first)
    sockets = (unit_files.of_text("shop-http.socket", second),)
    if file := unit_files._config_of(service):
        os.path.realpath(file)
        for found in _findings(service, Installed(service=service, sockets=sockets)):
            str(found)


def _findings(service: UnitFile, found: Installed) -> Iterator[object]:
    """Yield what is found without a look at the machine."""
    unit_files.program(service)
    for lines in service.settings.values():
        for line in lines:
            unit_files.split(line)
            span(line)
            unit_files.is_zero(line)
    yield from units._type(service, 252)
    yield from units._reload(service)
    yield from units._life(service)
    yield from units._sandbox(service, CONFIG)
    yield from units._umask(service, CONFIG)
    yield units._open_files(service)
    yield from socket_units.examine(CONFIG, found, units._wanted(CONFIG, found))


KEEPS_UNASKED = functools.cache(proxy._keeps_unasked)  # it runs nginx, whatever the input


@target
def proxies(data: bytes) -> None:
    """A config of nginx or HAProxy, whichever it looks like."""
    text = data.decode(errors="replace")
    for upstream in (*proxy._nginx(text, KEEPS_UNASKED), *proxy._haproxy(text)):
        for listen in CONFIG.listen:
            proxy._leads_to(upstream.address, listen.address)


@target
def tracebacks(data: bytes) -> None:
    """The last words of a worker, and the page that `dev` makes of them: no tag of theirs in it."""
    lines = data.decode(errors="backslashreplace").split("\n")
    found = failure.read(lines, "exited with status 1")
    subject = Subject(
        service="web", failure=found, rules=Rules("/srv", ["/srv"]),
        context=lambda frame: ((frame.line, "x = 1"),),
    )  # fmt: skip
    made = json.loads(page.render(subject))
    assert made["html"].lower().count("<script") <= 1, "there is one of ours"


# What tests have for other purposes as well.
_TESTS = Path(__file__).parents[1]
_MORE: dict[str, Callable[[], Iterator[bytes]]] = {
    "foreign": lambda: (
        bytes([number]) + path.read_bytes()
        for number, kind in enumerate(FOREIGN)
        for path in (_TESTS / "init" / "foreign").glob(f"{FOREIGN[kind]}/*")
        if path.suffix != ".toml"
    ),
    "procfiles": lambda: (
        path.read_bytes()
        for path in (_TESTS / "init" / "foreign" / "procfile").iterdir()
        if path.suffix != ".toml"
    ),
    "settings": lambda: iter((FULL.encode(),)),
    "state": lambda: (
        path.read_bytes().partition(b"\n")[2] for path in (_TESTS / "fleet").glob("snapshot-*.json")
    ),
}


def corpus(name: str) -> list[bytes]:
    """Return where the fuzzing of a target begins."""
    kept = (path.read_bytes() for path in (Path(__file__).with_name("corpus") / name).iterdir())
    return sorted((*kept, *_MORE.get(name, lambda: iter(()))()))
