"""Clients that send at random instants, while two workers toss their connections to and fro.

`python -m tests.worker.moving_race [MOVES]` goes on until clients have seen so many (10000); a test
sees a few hundred. A client sends one byte, two bytes, half a head, a whole request, or several,
and waits as it likes; it must get every answer, right and in order, on its one connection. Now and
then both workers are replaced, as by a reload.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.worker.moving import Service, service
from tests.worker.runtime import Worker

CLIENTS = 24
KINDS = (("httptools", "uvloop"), ("h11", "asyncio"), ("zttp", "uvloop"), ("httptools", "asyncio"))


class Racer:
    """One client; `moves` counts answers that came from another process than the one before."""

    def __init__(self, address: Any, seed: int) -> None:
        self.moves = self.answers = 0
        self._address, self._dice = address, random.Random(seed)
        self._last = b""

    async def race(self, enough: asyncio.Event) -> None:
        """Ask until it is enough."""
        reader, writer = await asyncio.open_connection(*self._address)
        while not enough.is_set():
            bodies = [
                b"%d" % self._dice.randrange(10**9) for _ in range(self._dice.choice([1, 1, 3]))
            ]
            sending = asyncio.create_task(self._send(writer, bodies))
            for body in bodies:
                await self._hear(reader, b"")
                await self._hear(reader, body)
            await sending
        writer.close()

    async def _send(self, writer: asyncio.StreamWriter, bodies: Sequence[bytes]) -> None:
        data = b"".join(
            b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(each), each)
            for each in bodies
        )
        while data:
            size = self._dice.choice([1, 2, 20, len(data), len(data)])
            writer.write(data[:size])
            data = data[size:]
            await asyncio.sleep(self._dice.choice([0, 0.0005, 0.002, self._dice.uniform(0, 0.01)]))

    async def _hear(self, reader: asyncio.StreamReader, body: bytes) -> None:
        """Take the next answer: the pid of who gives it, or this body."""
        async with asyncio.timeout(30):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            (length,) = (
                int(line[16:])
                for line in head.split(b"\r\n")
                if line.startswith(b"content-length: ")
            )
            said = await reader.readexactly(length)
        assert head.startswith(b"http/1.1 200 "), head
        assert b"connection: close" not in head
        self.answers += 1
        if body:
            assert said == body
            return
        self.moves += bool(self._last) and said != self._last
        self._last = said


def workers(web: Service, kind: tuple[str, str]) -> list[Worker]:
    """Start two that toss what they have."""
    http, loop = kind
    options = ("--http", http, "--loop", loop, "--no-access-log", "--keep-alive", "3600")
    return [web.worker(*options, app="tossing:app") for _ in range(2)]


async def race(web: Service, moves: int, kinds: Sequence[tuple[str, str]]) -> list[Racer]:
    """Race until clients have seen so many moves, with each kind of workers as long."""
    racers = [Racer(web.listener.getsockname(), seed) for seed in range(CLIENTS)]
    serving = await asyncio.to_thread(workers, web, kinds[0])
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for racer in racers:
            tasks.create_task(racer.race(enough))
        for number, kind in enumerate([*kinds[1:], kinds[0]], 1):
            while sum(each.moves for each in racers) < moves * number / len(kinds):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            old, serving = serving, await asyncio.to_thread(workers, web, kind)
            for worker in old:
                await asyncio.to_thread(worker.stop)
            for worker in old:
                assert await asyncio.to_thread(worker.status) == 0
        enough.set()
    return racers


def main() -> None:
    """Race, and say how it went."""
    moves = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as directory, service(Path(directory)) as web:
        racers = asyncio.run(race(web, moves, KINDS))
    answers, seen = sum(each.answers for each in racers), sum(each.moves for each in racers)
    print(f"{seen} moves seen, {answers} answers, all of them right and in order")


if __name__ == "__main__":
    main()
