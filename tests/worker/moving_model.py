"""Random moves, requests, deaths and reloads, against a model of what each client must be told.

`python -m tests.worker.moving_model [STEPS] [SEED]` plays so many (100000), over all kinds of
protocol; a test plays a few thousand. Workers are servers of our runtime in one event loop, each
with its own duplicates of the one move queue. The kernel is real: sockets, SCM_RIGHTS, buffers.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from sockmgr.worker.drain import Drain
from sockmgr.worker.intake import Intake
from sockmgr.worker.moves import Moves
from sockmgr.worker.options import Options
from sockmgr.worker.server import Server, configure

PROTOCOLS = ("httptools", "h11", "zttp")
CLIENTS, WORKERS = 12, 3
LONG = 20.0  # seconds; who has no answer then has lost one


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the path, the client and the body, sometimes later."""
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    if scope["path"].endswith("0"):
        await asyncio.sleep(0)
    said = b"%s %d %s" % (scope["path"].encode(), scope["client"][1], body)
    headers = [(b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


class Client:
    """One connection: what it still sends, and what it must be told for what it has sent."""

    def __init__(self, address: Any) -> None:
        self.sock = socket.create_connection(address)
        self.sock.setblocking(False)
        self.port = self.sock.getsockname()[1]
        self.told = b""
        self.closed = False
        self._unsent = b""
        self._number = 0
        self._wanted: deque[tuple[int, bytes]] = deque()  # bytes left to send, and the answer
        self._sent = self._made = 0

    def send(self, dice: random.Random) -> None:
        """Send one byte, two, half of what there is, or all; of one request or of several."""
        while not self._unsent or dice.random() < 0.2:
            self._unsent += self._request(dice)
        size = dice.choice([1, 2, len(self._unsent) // 2 + 1, len(self._unsent)])
        piece, self._unsent = self._unsent[:size], self._unsent[size:]
        try:
            self.sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True
        self._sent += len(piece)

    def _request(self, dice: random.Random) -> bytes:
        self._number += 1
        path, body = f"/{self._number}", dice.choice([b"", b"x" * dice.randrange(1, 40)])
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        request = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode()
        self._made += len(request) + len(body)
        self._wanted.append((self._made, f"{path} {self.port} ".encode() + body))
        return request + body

    def hear(self) -> None:
        """Take what came: whole answers, each the next one that is owed; fail on anything else."""
        try:
            while piece := self.sock.recv(65536):
                self.told += piece
            self.closed = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.closed = True
        while b"\r\n\r\n" in self.told:
            head, _, rest = self.told.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            assert lines[0] == b"http/1.1 200 ok", head
            assert b"connection: close" not in lines
            (length,) = (int(each[16:]) for each in lines if each.startswith(b"content-length: "))
            if len(rest) < length:
                return
            sent_to, answer = self._wanted.popleft()
            assert sent_to <= self._sent, "an answer to what was not asked"
            assert rest[:length] == answer
            self.told = rest[length:]

    @property
    def is_owed(self) -> bool:
        """Whether an answer to what it sent is missing."""
        return bool(self._wanted) and self._wanted[0][0] <= self._sent


@dataclass
class Worker:
    """One server, with its own duplicates of the queue."""

    server: Server
    drain: Drain
    moves: Moves

    @property
    def ports(self) -> set[int]:
        """The clients whose connections it has."""
        return {each.transport.get_extra_info("peername")[1] for each in self.connections}

    @property
    def connections(self) -> list[Any]:
        return [each for each in self.server._open() if not each.transport.is_closing()]


@dataclass
class Play:
    """One run. It owns the listener, the queue, the workers and the clients."""

    protocol: str
    dice: random.Random
    played: Counter[str] = field(default_factory=Counter)
    workers: list[Worker] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    moved: int = 0

    @property
    def options(self) -> Options:
        return Options(app="", http=self.protocol, keep_alive=3600, log_level="critical")

    async def run(self, steps: int) -> None:
        """Play so many steps, and see at the end that nobody is owed anything."""
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS)
        self.give, self.take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for _ in range(WORKERS):
            self.start()
        for number in range(steps):
            await self.step()
            if number % 10 == 0:
                self.look()
        await self.settle()
        while self.workers:
            self.end(self.workers[0])
        await asyncio.sleep(0.01)
        for client in self.clients:
            client.sock.close()
        for each in (self.listener, self.give, self.take):
            each.close()

    async def step(self) -> None:
        name, weight = zip(*self.choices(), strict=True)
        (chosen,) = self.dice.choices(name, weight)
        self.played[chosen] += 1
        getattr(self, chosen)()
        for _ in range(self.dice.choice([0, 0, 1, 2, 5])):  # turns of the event loop
            await asyncio.sleep(0)
        for client in self.clients:
            client.hear()
            assert not client.closed

    def choices(self) -> Iterator[tuple[str, float]]:
        yield "send", 10
        yield "move", 6
        yield "come", 3 if len(self.clients) < CLIENTS else 0.1
        yield "reload", 0.3
        yield "die", 0.2

    # --- Steps ---------------------------------------------------------------------------------

    def start(self) -> None:
        drain = Drain(600, 3600)
        moves = Moves(os.dup(self.give.fileno()), os.dup(self.take.fileno()), [self.listener])
        config = configure(self.options, lambda: drain.wrap(app))
        server = Server(config, drain, Intake([]), self.options, moves)
        server.lifespan = SimpleNamespace(state={})  # type: ignore[assignment]
        moves.on_room(server._move_all)
        moves.start(server._begin)
        self.workers.append(Worker(server, drain, moves))

    def come(self) -> None:
        self.clients.append(Client(self.listener.getsockname()))
        accepted, _ = self.listener.accept()
        accepted.setblocking(False)
        self.serving().server.take(accepted)

    def send(self) -> None:
        if self.clients:
            self.dice.choice(self.clients).send(self.dice)

    def move(self) -> None:
        """Have a worker give what it can give, though it goes on."""
        worker = self.serving()
        for each in worker.connections:
            if self.dice.random() < 0.5:
                worker.drain.move(each)

    def reload(self) -> None:
        """Tell all workers to stop, when there are others; they go when they have nothing."""
        leaving = [each for each in self.workers if each.drain.began_at is None]
        for _ in range(WORKERS):
            self.start()
        for worker in leaving:
            worker.drain.begin()
            worker.moves.stop()
            worker.server._move_all()

    def die(self) -> None:
        """Kill a worker: what it had is gone, and what waits in the queue is not."""
        worker = self.dice.choice(self.workers)
        if worker.server._taking:  # it has taken some of which it does not know the client yet
            return
        lost = worker.ports
        self.end(worker)
        for client in [each for each in self.clients if each.port in lost]:
            client.sock.close()
            self.clients.remove(client)
        if not any(each.drain.began_at is None for each in self.workers):
            self.start()

    def serving(self) -> Worker:
        return self.dice.choice([each for each in self.workers if each.drain.began_at is None])

    def end(self, worker: Worker) -> None:
        """Close all that it has, as the kernel does when a process ends."""
        for each in worker.connections:
            each.transport.abort()
        worker.moves.close()
        self.workers.remove(worker)
        self.moved += worker.moves.given

    def look(self) -> None:
        """Let those go that have drained; nobody's connection is in two workers."""
        seen = [port for worker in self.workers for port in worker.ports]
        assert len(seen) == len(set(seen))
        for worker in [each for each in self.workers if each.drain.began_at is not None]:
            if worker.drain.step(worker.server._open(), len(worker.server._taking)):
                self.end(worker)

    async def settle(self) -> None:
        """Wait until all that was asked is answered."""
        async with asyncio.timeout(LONG):
            while any(client.is_owed for client in self.clients):
                await asyncio.sleep(0.001)
                self.look()
                for client in self.clients:
                    client.hear()
                    assert not client.closed
        assert not any(client.told for client in self.clients)


def play(protocol: str, steps: int, seed: int) -> tuple[Counter[str], int]:
    """Play one run; return how often each step was played, and how often a connection moved."""
    run = Play(protocol, random.Random(seed))
    asyncio.run(run.run(steps))
    return run.played, run.moved


def main() -> None:
    """Play, a few thousand steps a run, and say what was played."""
    steps, seed = (int(each) for each in [*sys.argv[1:], *["100000", "1"][len(sys.argv) - 1 :]])
    played, moved = Counter[str](), 0
    while played.total() < steps:
        for protocol in PROTOCOLS:
            found = play(protocol, min(3000, steps), seed)
            played, moved = played + found[0], moved + found[1]
        seed += 1
    print(f"{played.total()} steps, {moved} moves: {dict(played)}")


if __name__ == "__main__":
    main()
