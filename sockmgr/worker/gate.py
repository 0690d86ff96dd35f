"""Admits connections that begin with a PROXY header: from trusted peers, with a valid one."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterable

from sockmgr.worker.peer import Trusted
from sockmgr.worker.proxy_protocol import HeaderError, Proxied, read

log = logging.getLogger("uvicorn.error")

TIMEOUT = 10.0  # seconds in which the header must arrive
PAUSE = 10.0  # seconds between two warnings in the log, however many connections are refused


class Gate:
    """Takes the header off each connection. Counts the refused ones since its last warning."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = Trusted(trusted)
        self._said_at, self._unsaid = -PAUSE, 0

    async def admit(self, sock: socket.socket) -> Proxied | None:
        """Return what the proxy says of the client of `sock`; None if it was refused and closed."""
        said = None
        try:
            said = await self._header(sock)
        except HeaderError as error:
            self._refuse(sock, str(error))
        except TimeoutError:
            self._refuse(sock, f"none came in {TIMEOUT:g} s")
        except OSError as error:  # the peer closed it, as health checks of proxies do
            log.debug("connection lost before its PROXY header: %s", error)
        finally:
            if said is None:
                sock.close()
        return said

    async def _header(self, sock: socket.socket) -> Proxied:
        if sock not in self._trusted:
            raise HeaderError("it is none of trusted_proxies")
        async with asyncio.timeout(TIMEOUT):
            return await read(sock)

    def _refuse(self, sock: socket.socket, why: str) -> None:
        self._unsaid += 1
        if time.monotonic() - self._said_at < PAUSE:
            return
        more = f" ({self._unsaid} since this was last said)" if self._unsaid > 1 else ""
        log.warning("no PROXY header from %s: %s; closed%s", _shown(sock), why, more)
        self._said_at, self._unsaid = time.monotonic(), 0


def _shown(sock: socket.socket) -> str:
    try:
        return str(sock.getpeername()[0]) if sock.family != socket.AF_UNIX else "a unix socket"
    except OSError:  # the peer is gone
        return "somebody"
