"""The shapes for ASGI, which must look as uvicorn shows them. Data only."""

from __future__ import annotations

from typing import Any

from tests.worker.shapes import Shape, chunked, request

BODY = bytes(range(256)) * 4
IN_CHUNKS = "Transfer-Encoding: chunked"
CHUNKS = chunked(BODY[:1], BODY[1:700], BODY[700:])
EXPECT = "Expect: 100-continue"


def get(path: str, **more: Any) -> Shape:
    return Shape(name=path, sends=request(f"/{path}"), **more)


def head(path: str) -> Shape:
    return Shape(name=f"HEAD {path}", sends=request(f"/{path}", method="HEAD"), method="HEAD")


def post(path: str, name: str, body: bytes, *fields: str, **more: Any) -> Shape:
    sends = request(f"/{path}", *fields, method="POST", body=body)
    return Shape(name=f"{path} {name}", sends=sends, **more)


TABLE = [
    *map(
        get,
        ("one", "sized", "many", "nothing", "large", "missing", "moved", "no_content", "unchanged",
         "closes", "cookies", "chunks_by_hand", "too_long", "too_short", "newline", "unfinished",
         "fails_at_once", "fails_after_start", "fails_after_part", "fails_after_all",
         "never_answers", "starts_twice", "body_first", "sends_on", "gives_something",
         "environment/a%2Fb/%FF?c=%20d"),
    ),
    *map(head, ("one", "sized", "many", "missing", "no_content", "fails_at_once")),
    post("body", "sized", BODY),
    post("body", "of nothing", b""),
    post("body", "in chunks", CHUNKS, IN_CHUNKS),
    post("body", "bytewise", BODY[:50], way="bytewise"),
    post("body", "expect", BODY, f"Content-Length: {len(BODY)}", EXPECT),
    post("unread", "expect", BODY, f"Content-Length: {len(BODY)}", EXPECT),
    post("unread", "small", BODY),
    post("echo", "sized", BODY * 100),
    post("echo", "in chunks", CHUNKS, IN_CHUNKS),
    *(
        post("body", f"cut after {sent}", BODY[:sent], "Content-Length: 1024", EXPECT, way="cut")
        for sent in (0, 1, 500, 1023)
    ),
    *(
        post("body", f"cut after {sent} of chunks", CHUNKS[:sent], IN_CHUNKS, EXPECT, way="cut")
        for sent in (1, 5, 400, len(CHUNKS) - 2)
    ),
    get("hears_the_end", way="leaves"),
    Shape(name="reset", sends=request("/hears_the_end"), way="resets"),
    Shape(name="slow", sends=request("/large"), way="slow"),
    Shape(name="HTTP/1.0", sends=request("/sized", version="1.0")),
    Shape(name="to be closed", sends=request("/many", "Connection: close")),
    Shape(name="pipeline", sends=request("/one") + request("/many"), answers=2),
    Shape(name="fields", sends=request("/environment", "Cookie: a", "Cookie: b", "X_Y: z", "X-Y:")),
    Shape(name="unix", sends=request("/environment"), unix=True),
    Shape(name="unix, left", sends=request("/hears_the_end"), unix=True, way="leaves"),
    Shape(name="no request", sends=b"nonsense\r\n\r\n"),
    Shape(name="bad length", sends=request("/one", "Content-Length: x")),
]  # fmt: skip
