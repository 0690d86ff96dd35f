"""What the drain must know of a client's connection, and how uvicorn's protocols tell it.

`tracked` makes a subclass of uvicorn's HTTP protocol that notes, through the methods that asyncio
and httptools call, when something came and which requests have begun. Decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

KEY = "sockmgr.connection"  # in the state of a scope, from the protocol to the drain


class Connection:
    """One HTTP connection. Instants are of CLOCK_MONOTONIC."""

    __slots__ = ("begun", "open", "parser", "quiet_since", "started")

    def __init__(self) -> None:
        self.quiet_since = time.monotonic()  # the last byte came, or the last answer ended
        self.begun = 0  # requests of which something came (httptools)
        self.started = 0  # requests that the application got
        self.open = 0  # requests that it has not finished
        self.parser: Any = None  # h11's Connection, where that parses

    @property
    def has_more(self) -> bool:
        """Whether more came than the requests that were started: the client pipelines."""
        if self.parser is not None:  # received and not parsed, a public attribute of h11
            return bool(self.parser.trailing_data[0])
        return self.begun > self.started


class Tracked(asyncio.Protocol):
    """Goes before uvicorn's protocol in the order of classes. Owns a Connection."""

    def __init__(
        self,
        config: object,
        server_state: object,
        app_state: Mapping[str, Any],
        _loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.connection = Connection()
        self.transport: asyncio.Transport
        super().__init__(
            config=config,
            server_state=server_state,
            # Each request's scope gets a copy, so this is how the application's side finds us.
            app_state={**app_state, KEY: self.connection},
            _loop=_loop,
        )  # type: ignore[call-arg]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock: a client that never sends anything is idle from here."""
        self.connection.quiet_since = time.monotonic()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Note that the client is not idle."""
        self.connection.quiet_since = time.monotonic()
        super().data_received(data)


class _HttpTools(Tracked):
    def on_message_begin(self) -> None:
        """Count the request (a callback of httptools)."""
        self.connection.begun += 1
        super().on_message_begin()  # type: ignore[misc]


class _H11(Tracked):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.parser = self.conn  # type: ignore[attr-defined]
        super().connection_made(transport)


def tracked(protocol: type[asyncio.Protocol]) -> type[Tracked] | None:
    """Return `protocol` as one that tells of its connections; None if it is not known how."""
    from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415 - only a worker has it

    if issubclass(protocol, H11Protocol):
        mixin: type[Tracked] = _H11
    elif hasattr(protocol, "on_message_begin"):
        mixin = _HttpTools
    else:
        return None
    return type(f"Tracked{protocol.__name__}", (mixin, protocol), {})
