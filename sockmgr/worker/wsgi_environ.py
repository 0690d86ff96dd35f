"""Makes the environ of a WSGI application (PEP 3333) from an ASGI scope. Does no I/O."""

from __future__ import annotations

import functools
import sys
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from sockmgr.worker.figures import Message

_PORTS = {"http": "80", "https": "443"}
# The headers that have variables of their own in RFC 3875, 4.1; none of them may be repeated.
_SINGLE = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}


def environ_of(scope: Message, body: BinaryIO) -> dict[str, Any]:
    """Return the environ of the request that `scope` describes; `body` is its wsgi.input."""
    version, prefix = scope["http_version"], scope["root_path"]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": prefix.rstrip("/").encode().decode("latin-1"),
        # From the raw path: scope["path"] has lost the bytes that are not UTF-8.
        "PATH_INFO": unquote_to_bytes(scope["raw_path"][len(prefix) :]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{version}" if "." in version else f"HTTP/{version}.0",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.input_terminated": True,  # wsgi.input ends with the body, also without a length
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
        text = value.strip(b" \t").decode("latin-1")  # some parsers leave blanks around it
        if key in environ and name not in _SINGLE:
            # A repeated header is a list, but in HTTP/2 cookies may be split: RFC 9113, 8.2.3.
            text = f"{environ[key]}{'; ' if name == b'cookie' else ','}{text}"
        environ[key] = text


@functools.lru_cache(maxsize=512)
def _key(name: bytes) -> str:
    """Return the variable for a header, "" if the header could pass for another one.

    A client could send X_Remote_User, which has the same variable as X-Remote-User, which only a
    proxy may set.
    """
    if b"_" in name:
        return ""
    return _SINGLE.get(name) or "HTTP_" + name.decode("latin-1").upper().replace("-", "_")


def _add_addresses(environ: dict[str, Any], scope: Message) -> None:
    name, port = scope.get("server") or ("", None)
    if port is None:  # on a unix socket, only the Host header says which server was meant
        name, port = _named(environ.get("HTTP_HOST", ""), _PORTS.get(scope["scheme"], ""))
    environ["SERVER_NAME"], environ["SERVER_PORT"] = name, str(port)
    address, client_port = scope.get("client") or ("", 0)
    environ["REMOTE_ADDR"] = address
    if client_port:  # 0: the address comes from X-Forwarded-For, which names no port
        environ["REMOTE_PORT"] = str(client_port)


def _named(host: str, port: str) -> tuple[str, str]:
    name, colon, digits = host.rpartition(":")
    if colon and digits.isdigit():
        return name, digits
    return host or "localhost", port
