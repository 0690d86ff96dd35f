"""Bytes that are no call of Varlink, or none that anybody may make."""

from __future__ import annotations

import os

GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\0",
    b"\0",
    b"\0\0\0\0",
    b"{}\0",
    b"[]\0",
    b"null\0",
    b'{"method":1}\0',
    b'{"method":"a.b","more":"yes"}\0',
    b'{"method":"a\xff\xfe.b"}\0',
    b'{"method":"\\ud800"}\0',
    b"[" * 60_000 + b"\0",
    b'{"method":"a.b","parameters":' + b"[" * 60_000 + b"\0",
    b'{"method":"a.b","parameters":' + b'{"a":' * 12_000 + b"1" + b"}" * 12_000 + b"}\0",
    bytes(range(255, -1, -1)),
    os.urandom(4096) + b"\0",
]
