"""Who the client of a connection is, and what of it the application is told in the scope.

An IPv4 client of a listener on [::] has an address of IPv6 that only maps its own (RFC 4291,
2.5.5.2); it is shown, and compared with the proxies that are trusted, as IPv4.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from sockmgr.worker.connection import KEY, Connection

Message = MutableMapping[str, Any]
App = Callable[[Message, Any, Any], Awaitable[None]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = "::ffff:"
_BITS = 96  # of a mapped address, before that of IPv4


def plain(text: str) -> str:
    """Return an address or a network as IPv4 if it only maps such; any other text as it is."""
    if not text.lower().startswith(_MAPPED):
        return text
    try:
        network = ipaddress.IPv6Network(text, strict=False)
    except ValueError:
        return text
    address = network.network_address.ipv4_mapped
    if address is None or network.prefixlen < _BITS:
        return text
    return f"{address}/{network.prefixlen - _BITS}" if "/" in text else str(address)


class Trusted:
    """The peers that are trusted: addresses and networks, or "*" for all."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Leave out what is no address, as uvicorn compares it by letters."""
        self._all, self._networks = False, list[Network]()
        for text in texts:
            self._all = self._all or text == "*"
            try:
                self._networks.append(ipaddress.ip_network(plain(text)))
            except ValueError:
                continue

    def __contains__(self, sock: socket.socket) -> bool:
        """Tell whether the peer of `sock` is one; raises OSError if it is gone."""
        if self._all:
            return True
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        address = ipaddress.ip_address(plain(sock.getpeername()[0].partition("%")[0]))
        return any(address in network for network in self._networks)


def told(app: App) -> App:
    """Return `app`, told of who the client is; to be called before anything looks at the scope."""

    async def serve(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            connection = (scope.get("state") or {}).get(KEY)
            if connection is not None:
                _tell(scope, connection)
            for end in ("client", "server"):
                if address := scope.get(end):
                    scope[end] = (plain(address[0]), address[1])
        await app(scope, receive, send)

    return serve


def _tell(scope: Message, connection: Connection) -> None:
    if proxied := connection.proxied:
        scope["client"] = proxied.client or scope["client"]
        scope["server"] = proxied.server or scope["server"]
        if proxied.tls:
            scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"
    if connection.tls:
        scope["extensions"] = {**(scope.get("extensions") or {}), "tls": connection.tls}
