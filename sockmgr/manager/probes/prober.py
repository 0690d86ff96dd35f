"""Asks one worker by one probe, once each time. Owns the connection while it asks."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

from sockmgr.config.probe import HttpProbe, Probe
from sockmgr.errors import ListenError
from sockmgr.kernel import connections
from sockmgr.kernel.closing import closed_on_error
from sockmgr.manager.probes.reply import NoAnswer, Reply

Reach = Callable[[], Awaitable[socket.socket]]
READ = 16 << 10  # bytes
SOONEST, LATEST = 0.001, 0.02  # seconds between two looks whether a connection was accepted


class Prober:
    """Asks by `probe`, on a connection that `reach` makes; `listener` is its name for people.

    With `tls` it speaks TLS, and takes any certificate: the connection leads to one worker of ours.
    `is_sent`: the last probe tells of the worker, for it did not fail before it was sent.
    """

    def __init__(self, probe: Probe, listener: str, reach: Reach, *, tls: bool) -> None:
        self.probe = probe
        self._name, self._reach = f"{probe} on {listener}", reach
        self.is_sent = True
        self._tls = trusting() if tls and isinstance(probe, HttpProbe) else None

    async def ask(self) -> str:
        """Ask once; return "" if the probe was passed, and else what was seen, as a sentence."""
        reply, limit = Reply(), self.probe.timeout
        self.is_sent = True
        try:
            async with asyncio.timeout(limit):
                seen = await self._ask(reply)
        except TimeoutError:
            so_far = f": {reply.came} bytes came" if reply.came else ""
            what = "did not end its answer" if so_far else "did not answer"
            if not isinstance(self.probe, HttpProbe):
                what = "was not accepted"
            seen = f"{what} within {limit:g} s{so_far}"
        # What it has from the worker is shown shortened and quoted: it goes to terminals and logs.
        except NoAnswer as error:
            seen = str(error)
        except ListenError as error:
            self.is_sent, seen = False, f"could not be sent: {error.what}"
        except (ssl.SSLError, ValueError) as error:  # ValueError: the host is no name for TLS
            seen = f"got no TLS: {(getattr(error, 'reason', '') or str(error)).lower()}"
        except OSError as error:
            seen = f"was cut off: {(error.strerror or str(error)).lower()}"
        return f"{self._name} {seen}" if seen else ""

    async def _ask(self, reply: Reply) -> str:
        if not isinstance(self.probe, HttpProbe):
            with await self._connection() as sock:
                await _accepted(sock)
            return ""
        await get(await self._connection(), self.probe, reply, self._tls)
        if self.probe.expects(reply.status):
            return ""
        more = f", to {reply.location}" if reply.location else ""
        more = more or (f": {reply.quoted!r}" if reply.quoted else "")
        return f"answered {reply.status} (expected {', '.join(self.probe.expect)}){more}"

    async def _connection(self) -> socket.socket:
        try:
            return await self._reach()
        except OSError as error:  # we are out of descriptors or ports, say
            raise ListenError((error.strerror or str(error)).lower()) from error


async def get(
    sock: socket.socket, probe: HttpProbe, reply: Reply, tls: ssl.SSLContext | None
) -> None:
    """Send the request of a probe on a connection that becomes ours, and fill in `reply`.

    Raises NoAnswer and OSError. There is no deadline.
    """
    reader, writer = await _opened(sock, probe, tls)
    try:
        writer.write(_request(probe))
        while data := await reader.read(READ):
            if reply.take(data):
                return
        reply.end()
    finally:
        # Without a goodbye: one of TLS may wait for a worker that has stopped to listen.
        writer.transport.abort()


async def _opened(
    sock: socket.socket, probe: HttpProbe, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    with closed_on_error(sock):
        if tls is None:
            return await asyncio.open_connection(sock=sock)
        # A server may choose its certificate, or refuse us, by the name.
        name = probe.host.removeprefix("[").partition("]" if probe.host[:1] == "[" else ":")[0]
        return await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name)


def _request(probe: HttpProbe) -> bytes:
    headers = {"Host": probe.host, "User-Agent": "sockmgr-probe", "Accept": "*/*"}
    given = {name.title() for name, _ in probe.headers}
    lines = [f"GET {probe.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name not in given]
    lines += [f"{name}: {value}" for name, value in probe.headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape")


async def _accepted(sock: socket.socket) -> None:
    """Return when somebody has accepted the connection; raise OSError if it was reset."""
    pause = SOONEST
    while not connections.is_accepted(sock):
        await asyncio.sleep(pause)  # no event tells it
        pause = min(2 * pause, LATEST)


def trusting() -> ssl.SSLContext:
    """Return the TLS of a client that looks at no certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
