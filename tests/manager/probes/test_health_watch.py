"""Of a worker that is asked again and again only what is news is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

from sockmgr.config.probe import HttpProbe
from sockmgr.errors import ListenError
from sockmgr.manager.probes.health_watch import HealthWatch
from sockmgr.manager.probes.prober import Prober
from tests.manager.probes.servers import reach

GOOD, BAD, UNSENT = "good", "bad", "unsent"
FAILED = "probe GET / on http answered 500 (expected 200)"


async def told(story: str) -> list[str]:
    """Return what is told while a worker answers like this."""
    news, over = list[str](), asyncio.Event()
    answers: Iterator[str] = iter(story.split())

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = 200 if said[-1] == GOOD else 500
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
        await writer.drain()
        writer.close()

    said: list[str] = []

    async def way() -> socket.socket:
        said.append(next(answers, ""))
        if not said[-1]:
            over.set()
        if said[-1] in ("", UNSENT):
            raise ListenError("no way")
        return await reach(server.sockets[0].getsockname())

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    probe = HttpProbe(path="/", every=0.001, timeout=30.0)
    watch = HealthWatch(Prober(probe, "http", way, tls=False), 3, news.append)
    task = asyncio.create_task(watch.watch())
    await over.wait()
    task.cancel()
    server.close()
    await asyncio.sleep(0.01)
    return news


def test_health_is_told_once_and_so_is_its_end() -> None:
    after_three = f"{FAILED}, 3 times in a row"
    assert asyncio.run(told("good good bad bad good")) == [""]
    assert asyncio.run(told("bad bad bad bad bad good good")) == [after_three, ""]
    assert asyncio.run(told("good bad bad bad good bad bad bad")) == ["", after_three] * 2


def test_a_probe_that_could_not_be_sent_is_no_fault_of_the_worker() -> None:
    assert asyncio.run(told("good bad bad unsent unsent unsent good")) == [""]
    assert len(asyncio.run(told("bad unsent bad unsent bad"))) == 1
