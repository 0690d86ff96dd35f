"""What one worker tells the next of a connection that it gives away. Pure.

One message of a move queue is one connection: a JSON object, with the descriptor beside it. What
the kernel tells of the socket, as its addresses, is not in the message: it could be forged there.
docs/dispatch-protocol.md describes it for other programs.
"""

from __future__ import annotations

import ipaddress
import json
import math
from dataclasses import dataclass
from typing import Any

from sockmgr.worker.proxy_protocol import Address, Proxied

MOVED = "X_SOCKMGR_MOVED"  # what a worker says on NOTIFY_SOCKET: how many it gave
VERSION = 1
_MOST_REQUESTS = 2**53  # what JSON has exactly


class MessageError(ValueError):
    """These bytes tell of no connection."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A connection between two requests: how many it had, and since when it is idle.

    `idle_since` is of CLOCK_MONOTONIC, so that the time in the queue counts. `proxied` is what a
    header of the PROXY protocol said.
    """

    idle_since: float
    requests: int
    proxied: Proxied | None = None


def encode(moved: Moved) -> bytes:
    told: dict[str, Any] = {
        "version": VERSION, "idle_since": moved.idle_since, "requests": moved.requests,
    }  # fmt: skip
    if proxied := moved.proxied:
        told["proxied"] = {
            "client": proxied.client, "server": proxied.server, "tls": proxied.tls,
        }  # fmt: skip
    return json.dumps(told, separators=(",", ":")).encode()


def decode(message: bytes) -> Moved:
    """Return what a message tells; raises MessageError. What else is in it is passed over."""
    try:
        told = json.loads(message)
        _check_version(told["version"])
        proxied = told.get("proxied")
        return Moved(
            idle_since=_instant(told["idle_since"]),
            requests=_number(told["requests"], _MOST_REQUESTS),
            proxied=None if proxied is None else _proxied(proxied),
        )
    except MessageError:
        raise
    except (
        ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError,
    ) as error:  # fmt: skip
        raise MessageError(f"its message cannot be read: {type(error).__name__}") from None


def _check_version(version: Any) -> None:
    if version != VERSION:
        raise MessageError(f"its message is of version {version!r}, which is not known")


def _instant(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise MessageError("its message has no instant where one must be")
    return float(value)


def _number(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise MessageError("its message has a number that cannot be")
    return value


def _proxied(told: Any) -> Proxied:
    return Proxied(_address(told["client"]), _address(told["server"]), told["tls"] is True)


def _address(told: Any) -> Address | None:
    if told is None:
        return None
    host, port = told
    if not isinstance(host, str):
        raise MessageError("its message has no address where one must be")
    return str(ipaddress.ip_address(host)), _number(port, 65535)
