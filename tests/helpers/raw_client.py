"""A client of the control socket that sends what it likes, whole messages or not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

MANAGER = "io.sockmgr.Manager"
SERVICE = "org.varlink.service"
LONG = 20.0  # a test that waits this long has failed


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


class Raw:
    """A client that sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, path: Path) -> Raw:
        return cls(*await asyncio.open_unix_connection(path, limit=2**26))

    @classmethod
    async def following(cls, path: Path, method: str, parameters: object = None) -> Raw:
        """Connect and ask for more than one reply."""
        client = await cls.connect(path)
        client.call(method, parameters, more=True)
        return client

    def call(self, method: str, parameters: object = None, **flags: bool) -> None:
        message = {"method": method, "parameters": parameters or {}, **flags}
        self.writer.write(json.dumps(message).encode() + b"\0")

    async def reply(self) -> dict[str, Any]:
        async with asyncio.timeout(LONG):
            data = await self.reader.readuntil(b"\0")
        found = json.loads(data[:-1])
        assert isinstance(found, dict)
        return found

    async def ask(self, method: str, parameters: object = None) -> dict[str, Any]:
        self.call(method, parameters)
        return await self.reply()

    async def is_closed(self) -> bool:
        """Read until the server hangs up."""
        try:
            async with asyncio.timeout(LONG):
                while await self.reader.read(2**20):
                    pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def assert_serves(path: Path) -> None:
    client = await Raw.connect(path)
    reply = await client.ask(f"{MANAGER}.Status")
    assert reply["parameters"]["manager"]["pid"] == 812
    await client.close()


async def let_in(path: Path) -> Raw:
    """Return a client that is one of those that are served, as soon as there is room."""
    async with asyncio.timeout(LONG):
        while True:
            client = await Raw.connect(path)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                if "error" not in await client.ask(f"{SERVICE}.GetInfo"):
                    return client
            await client.close()


async def until(fact: Callable[[], object]) -> None:
    """Wait for a fact of the kernel, which has no event to wait for."""
    async with asyncio.timeout(LONG):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
