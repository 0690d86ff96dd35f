"""What a WSGI application is told of a request (PEP 3333), made of an ASGI scope. Does no I/O."""

from __future__ import annotations

import functools
import sys
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from sockmgr.worker.drain import Message

_PORTS = {"http": "80", "https": "443"}
# Headers that RFC 3875, 4.1, gives a variable of their own; none of them may be repeated.
_SINGLE = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}


def environ_of(scope: Message, body: BinaryIO) -> dict[str, Any]:
    """Return the environ of the request that `scope` describes; `body` is its wsgi.input."""
    version, prefix = scope["http_version"], scope["root_path"]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": prefix.rstrip("/").encode().decode("latin-1"),
        # Of the raw bytes: scope["path"] has lost those that are no UTF-8.
        "PATH_INFO": unquote_to_bytes(scope["raw_path"][len(prefix) :]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{version}" if "." in version else f"HTTP/{version}.0",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.input_terminated": True,  # it ends where the body ends, with or without a length
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    _add_headers(environ, scope["headers"])
    _add_addresses(environ, scope)
    return environ


def _add_headers(environ: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> None:
    for name, value in headers:
        key = _key(name)
        if not key:
            continue
        text = value.strip(b" \t").decode("latin-1")  # of which some parsers leave some
        if key in environ and name not in _SINGLE:
            # Cookies come in several fields in HTTP/2 (RFC 9113, 8.2.3); all others are lists.
            text = f"{environ[key]}{'; ' if name == b'cookie' else ','}{text}"
        environ[key] = text


@functools.lru_cache(maxsize=512)
def _key(name: bytes) -> str:
    """Return the variable for a header; none if the header could pass for another one.

    X_Remote_User would be the variable of X-Remote-User, which a proxy sets and clients may not.
    """
    if b"_" in name:
        return ""
    return _SINGLE.get(name) or "HTTP_" + name.decode("latin-1").upper().replace("-", "_")


def _add_addresses(environ: dict[str, Any], scope: Message) -> None:
    name, port = scope.get("server") or ("", None)
    if port is None:  # a unix socket, so the client says by which name it came
        name, port = _named(environ.get("HTTP_HOST", ""), _PORTS.get(scope["scheme"], ""))
    environ["SERVER_NAME"], environ["SERVER_PORT"] = name, str(port)
    address, client_port = scope.get("client") or ("", 0)
    environ["REMOTE_ADDR"] = address
    if client_port:  # 0: it is known by a header of a proxy only, which names no port
        environ["REMOTE_PORT"] = str(client_port)


def _named(host: str, port: str) -> tuple[str, str]:
    name, colon, digits = host.rpartition(":")
    if colon and digits.isdigit():
        return name, digits
    return host or "localhost", port
