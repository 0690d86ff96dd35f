"""A WSGI application without a framework: `/`, `/slow?s=2` and `/stream?s=4`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from version import VERSION

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def import_slowly(seconds: float) -> None:
    """Take as long as a larger application does to import: half asleep, half at work."""
    time.sleep(seconds / 2)
    end = time.process_time() + seconds / 2
    while time.process_time() < end:
        pass


import_slowly(float(os.environ.get("IMPORT_SECONDS", "0")))


def answer() -> bytes:
    """Say who answers."""
    return json.dumps({"pid": os.getpid(), "version": VERSION}).encode()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request."""
    query = parse_qs(environ.get("QUERY_STRING", ""))
    seconds = min(60.0, float(query.get("s", ["1"])[0]))
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(seconds)
    if environ["PATH_INFO"] == "/slow":
        time.sleep(seconds)
    body = answer()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def stream(seconds: float) -> Iterator[bytes]:
    """Yield lines for so many seconds, and finish with END."""
    yield answer() + b"\n"
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(0.2, left))
        yield b"tick\n"
    yield b"END\n"
