"""Who the client of a connection is, for the scope of the application and for trusting proxies.

An IPv4 client of a listener on [::] has an IPv6 address that maps its own (RFC 4291, 2.5.5.2).
That is shown, and compared with the trusted proxies, as IPv4.
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
_BITS = 96  # the bits of a mapped address before the IPv4 address


def plain(text: str) -> str:
    """Return a mapped IPv4 address or network as IPv4, any other text as it is."""
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
        """Skip texts that are no addresses: only uvicorn uses them, and compares them as texts."""
        self._all, self._networks = False, list[Network]()
        for text in texts:
            self._all = self._all or text == "*"
            try:
                self._networks.append(ipaddress.ip_network(plain(text)))
            except ValueError:
                continue

    def __contains__(self, sock: socket.socket) -> bool:
        """Return whether the peer of `sock` is trusted; raise OSError if it is gone."""
        if self._all:
            return True
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        address = ipaddress.ip_address(plain(sock.getpeername()[0].partition("%")[0]))
        return any(address in network for network in self._networks)


def told(app: App) -> App:
    """Return `app` with the right client in its scope; wrap it around whatever reads the scope."""

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
    """Put into the scope what the PROXY header and TLS say of the client."""
    if proxied := connection.proxied:
        scope["client"] = proxied.client or scope["client"]
        scope["server"] = proxied.server or scope["server"]
        if proxied.tls:
            scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"
    if connection.tls:
        scope["extensions"] = {**(scope.get("extensions") or {}), "tls": connection.tls}
