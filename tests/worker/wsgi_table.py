"""The shapes for WSGI. Data only: what differs from Gunicorn, and why, stands beside each."""

from __future__ import annotations

from typing import Any

from tests.worker.shapes import Shape, chunked, request

ERROR = (b"Internal Server Error", "uvicorn's page for an error, not Gunicorn's")
PLAIN = (None, "uvicorn's page for an error")


def failing(**more: Any) -> dict[str, Any]:
    """An error before anything was sent: 500, and one traceback in the log."""
    differs = {"body": ERROR, "headers": PLAIN} | more
    return {"tracebacks": 1, "differs": differs}


def answer(name: str, query: str = "", **more: Any) -> Shape:
    """A plain GET."""
    return Shape(name=name + query, sends=request(f"/{name}{query}"), **more)


def head(name: str, **more: Any) -> Shape:
    return Shape(
        name=f"HEAD {name}", sends=request(f"/{name}", method="HEAD"), method="HEAD", **more
    )


def post(reads: str, body: bytes, *fields: str, name: str = "", **more: Any) -> Shape:
    kind = "chunked" if fields else "sized"
    sends = request(f"/body?{reads}", *fields, method="POST", body=body)
    return Shape(name=name or f"{kind} body {reads}", sends=sends, method="POST", **more)


LINES = b"first\nsecond\n\nlast without an end"
IN_CHUNKS = "Transfer-Encoding: chunked"
CHUNKS = chunked(b"fir", b"st\nsecond\n", b"\nlast", b" without an end")
NOT_SENT = "nothing was sent yet, so the client can be told"
UNMADE = (b"closed", "what nobody gets is not made; an endless answer would never end")
REPLACED = "headers that are set again replace those that were (PEP 3333)"
TOLD = {"events": (b"told in the read", "Gunicorn takes half a body for a whole one")}
ANSWERS = [
    answer("one"),
    answer("sized"),
    answer("many"),
    answer("nothing"),
    answer("nothing_sized"),
    answer("tuple_of_two"),
    answer("generated"),
    answer("generated_sized"),
    answer("generated_nothing"),
    answer("late_start"),
    answer("large"),
    answer("large", "?slowly", way="slow"),
    answer("created"),
    answer("moved"),
    answer("missing"),
    answer("unusual"),
    answer("no_reason"),
    answer("no_content"),
    answer("no_content_body", differs={"events": UNMADE}),
    answer("unchanged"),
    answer(
        "unchanged_sized",
        differs={"headers": ({"etag": ['"1"']}, "uvicorn takes no length with 304; it may lack")},
    ),
    answer("unchanged_body", differs={"events": UNMADE}),
    answer("spaces"),
    answer("latin"),
    answer("cookies"),
    answer("hops"),
    answer("chunked_by_hand"),
    answer("of_server"),
    answer("long_list"),
    answer("long_generated", differs={"events": UNMADE}),
    answer("long_by_far", differs={"events": UNMADE}),
    answer("long_for_nothing"),
    answer("written"),
    answer("written_then_listed"),
    answer("written_large"),
    answer("written_too_long"),
    answer("starts_again", differs={"headers": ({"retry-after": ["5"]}, REPLACED)}),
    answer(
        "generator_starts_again",
        differs={
            "status": (500, NOT_SENT),
            "headers": ({"x-error": ["1"]}, REPLACED),
            "body": (b"instead", NOT_SENT),
            "whole": (True, NOT_SENT),
        },
    ),
    answer("file"),
    answer("file", "?1000"),
    answer("file", "?-1500"),
    answer("file_in_memory"),
    answer("complains"),
    answer("valid"),
    answer("valid_write"),
    head("one"),
    head("sized"),
    head("generated", differs={"events": UNMADE}),
    head("generated_sized", differs={"events": UNMADE}),
    head("nothing"),
    head("written"),
    head("file"),
    head("missing"),
    head("no_content"),
]
ERRORS = [
    answer("short_list", tracebacks=1),
    answer("short_generated", tracebacks=1),
    answer("short_nothing", tracebacks=1),
    answer("newline", **failing()),
    answer("newline_in_name", **failing()),
    answer("name_with_space", **failing()),
    answer("unprintable", **failing()),
    answer("number_as_value", **failing()),
    answer("length_of_words", **failing()),
    answer("status_as_number", **failing()),
    answer("status_of_words", **failing()),
    answer("words", **failing(status=(500, NOT_SENT), whole=(True, NOT_SENT))),
    answer("words_later", tracebacks=1),
    answer("fails_at_once", **failing()),
    answer("fails_after_start", **failing()),
    answer("fails_before_first", **failing()),
    answer("fails_after_nothing", **failing(status=(500, NOT_SENT), whole=(True, NOT_SENT))),
    answer("fails_after_first", tracebacks=1),
    answer("fails_after_first_sized", tracebacks=1),
    answer("fails_after_all", tracebacks=1),
    answer("fails_after_write", tracebacks=1),
    answer("fails_and_bad_close", **failing()),
    answer("bad_close", tracebacks=1),
    answer("never_starts", **failing()),
    answer("starts_twice", **failing()),
    answer("gives_none", **failing()),
    answer("stops", **failing(status=(500, NOT_SENT), whole=(True, NOT_SENT))),
    answer("written_words", **failing(status=(500, NOT_SENT), whole=(True, NOT_SENT))),
    answer("starts_again", "?late", tracebacks=1),
    head("fails_at_once", tracebacks=1, differs={"headers": PLAIN}),
]
GONE = [
    answer("endless", "?20", way="leaves"),
    answer("endless", "?0", way="leaves"),
    answer("endless", "?1", way="resets"),
    answer("endless_write", way="leaves"),
    Shape(name="pipeline left", sends=request("/endless?5") + request("/one"), way="leaves"),
    *(
        post(
            "all",
            b"x" * sent,
            "Content-Length: 5000",
            "Expect: 100-continue",
            name=f"cut after {sent}",
            way="cut",
            differs=TOLD,
        )
        for sent in (0, 1, 733, 4999)
    ),
    *(
        post(
            "pieces",
            CHUNKS[:sent],
            IN_CHUNKS,
            "Expect: 100-continue",
            name=f"cut after {sent} of chunks",
            way="cut",
        )
        for sent in (0, 1, 4, 17, len(CHUNKS) - 3)
    ),
    Shape(
        name="cut while it is given back",
        sends=request("/echo", "Content-Length: 90000", method="POST", body=b"0123456789" * 200),
        way="leaves",
    ),
]
REQUESTS = [
    *(
        post(reads, LINES)
        for reads in ("all", "sized", "pieces", "lines", "short_lines", "all_lines", "iterated",
                    "beyond", "some", "none")
    ),
    *(
        post(reads, CHUNKS, IN_CHUNKS)
        for reads in ("all", "pieces", "lines", "short_lines", "all_lines", "iterated", "beyond",
                    "some", "none")
    ),
    post("all", b"", name="body of nothing"),
    post("all", chunked(), IN_CHUNKS, name="chunked body of nothing"),
    post("all", LINES, name="bytewise", way="bytewise"),
    post("all", CHUNKS, IN_CHUNKS, name="chunked bytewise", way="bytewise"),
    post(
        "all", b'3;name="a b"\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n', IN_CHUNKS,
        name="chunk extensions and trailers",
    ),
    post("all", LINES, f"Content-Length: {len(LINES)}", "Expect: 100-continue", name="expect"),
    post(
        "none", LINES, f"Content-Length: {len(LINES)}", "Expect: 100-continue",
        name="expect, not read",
        differs={"interim": ([], "the body is asked for when the application wants it")},
    ),
    Shape(name="large body", sends=request("/size", method="POST", body=bytes(3_000_000))),
    Shape(
        name="large in chunks",
        sends=request("/size", IN_CHUNKS, method="POST", body=chunked(*[bytes(70_000)] * 20)),
    ),
    Shape(name="echo", sends=request("/echo", method="POST", body=bytes(300_000))),
    Shape(name="terminated", sends=request("/terminated", method="POST", body=b"sized")),
    Shape(
        name="terminated by chunks",
        sends=request("/terminated", IN_CHUNKS, method="POST", body=CHUNKS),
    ),
    Shape(name="valid with a body", sends=request("/valid", method="POST", body=LINES)),
    Shape(
        name="valid in chunks", sends=request("/valid", IN_CHUNKS, method="POST", body=CHUNKS)
    ),
    *(
        Shape(name=method, sends=request("/environment", method=method), method=method)
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND")
    ),
    *(
        Shape(name=f"path {path}", sends=request(f"/environment{path}"))
        for path in ("/", "/a%2Fb", "/%FF%00", "/%C3%A9", "//x", "/a;b=c", "/%zz", "/x?", "/?a=b&c",
                     "?q=%20+%C3%A9", "/a+b", "/x?a?b", "/a/../b")
    ),
    Shape(
        name="fields",
        sends=request(
            "/environment", "Accept: a", "Accept: b", "Cookie: a=1", "X-Empty:", "X-Latin: \xe9",
            "X-Spaces:  a  b ", "Content-Type: text/plain", "X.Dot: 1", "Proxy: evil",
        ),
    ),
    Shape(
        name="underscores",
        sends=request("/environment", "X_Remote_User: admin", "X-Remote-User: alice", "A_B: 1"),
    ),
    Shape(name="underscore of a length", sends=request("/environment", "Content_Length: 5")),
    Shape(name="HTTP/1.0", sends=request("/environment", version="1.0")),
    Shape(name="HTTP/1.0, kept", sends=request("/sized", "Connection: keep-alive", version="1.0")),
    Shape(name="to be closed", sends=request("/generated", "Connection: close")),
    Shape(name="pipeline", sends=request("/one") + request("/generated"), answers=2),
    Shape(
        name="pipeline behind a body that is not read",
        sends=request("/body?none", method="POST", body=LINES) + request("/sized"),
        answers=2,
    ),
    Shape(name="unix", sends=request("/environment"), unix=True),
    Shape(
        name="unix, port in the host",
        sends=b"GET /environment HTTP/1.1\r\nHost: shop.example:8000\r\n\r\n",
        unix=True,
    ),
    Shape(name="unix, large", sends=request("/large"), unix=True),
    Shape(name="unix, left", sends=request("/endless?5"), way="leaves", unix=True),
]  # fmt: skip
TABLE = [*ANSWERS, *ERRORS, *GONE, *REQUESTS]

# What HTTP/2 has as well; the environment tells of it.
IN_HTTP2 = [
    shape
    for shape in [*ANSWERS, *ERRORS, *REQUESTS]
    if (shape.way, shape.unix, shape.answers) == ("whole", False, 1)
    and not any(
        word in shape.sends for word in (b"/environment", b"HTTP/1.0", b"Expect", b"?sized", b";")
    )
]
