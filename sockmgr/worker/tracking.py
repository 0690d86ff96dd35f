"""Combines our classes with uvicorn's protocols, if this version of uvicorn fits them."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from sockmgr.worker.connection import H11, HttpTools, Tracked, Zttp


def tracked(protocol: type[asyncio.Protocol]) -> type[Tracked] | None:
    """Return a subclass of `protocol` that tracks its connections, None if we know no way."""
    from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415 - only a worker has it

    if protocol.__name__ == "AutoZttpProtocol":
        return _either(protocol)
    if issubclass(protocol, H11Protocol):
        return _joined(H11, protocol)
    if protocol.__name__ == "ZttpProtocol":
        return _joined(Zttp, protocol)
    return _joined(HttpTools, protocol) if hasattr(protocol, "on_message_begin") else None


def _either(protocol: type[asyncio.Protocol]) -> type[Tracked] | None:
    # zttp is an optional dependency, and is installed if uvicorn has this protocol.
    import zttp  # noqa: PLC0415
    from uvicorn.protocols.http.zttp_h2_impl import ZttpH2Protocol  # noqa: PLC0415
    from uvicorn.protocols.http.zttp_impl import ZttpProtocol  # noqa: PLC0415

    from sockmgr.worker import http2  # noqa: PLC0415

    kinds = _joined(Zttp, ZttpProtocol), _joined(http2.Http2, ZttpH2Protocol)
    if None in kinds or not all(hasattr(zttp.H2Connection, name) for name in http2.NEEDED):
        return None
    return _joined(http2.Either, protocol, kinds=kinds)


def _joined(
    ours: type[Tracked], protocol: type[asyncio.Protocol], **more: object
) -> type[Tracked] | None:
    cycle = getattr(sys.modules[protocol.__module__], "RequestResponseCycle", None)
    if not (_has(protocol, ours.needs) and _has(cycle, ours.needs_of_cycle)):
        return None
    return type(f"Tracked{protocol.__name__}", (ours, protocol), more)


def _has(made: Any, names: frozenset[str]) -> bool:
    """Return whether objects of a class have these attributes, or names them in its __init__."""
    set_at_first = getattr(getattr(made, "__init__", None), "__code__", None)
    known = frozenset(set_at_first.co_names) if set_at_first else frozenset()
    return all(name in known or hasattr(made, name) for name in names)
