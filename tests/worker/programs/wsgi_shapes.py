"""A WSGI application that answers in all the ways there are, and tells what became of each answer.

The path names the function. /meet needs two threads, /events says what the one before went through.
"""

from __future__ import annotations

import contextvars
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], Any]]

events: list[str] = []
meeting = threading.Barrier(2, timeout=10)
user = contextvars.ContextVar("user", default="nobody")
OK = "200 OK"
TEXT = [("Content-Type", "text/plain")]
MEBI = bytes(range(256)) * 4096


class Watched:
    """An iterable that notes how it is closed."""

    def __init__(self, parts: Iterable[Any], *, fails: bool = False) -> None:
        self._parts, self._fails, self._thread = parts, fails, threading.get_ident()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parts)

    def close(self) -> None:
        same = self._thread == threading.get_ident()
        events.append("closed" if same else "closed by another thread")
        if hasattr(self._parts, "close"):
            self._parts.close()
        if self._fails:
            raise ValueError("close fails")


def app(environ: Environ, start: Start) -> Any:
    """Call the function that the path names."""
    name = environ["PATH_INFO"].split("/")[1]
    if name == "meet":
        meeting.wait()
        start(OK, [("Content-Length", "3")])
        return [b"met"]
    if name == "events":
        start(OK, TEXT)
        said = ", ".join(events)
        events.clear()
        return [said.encode()]
    return globals()[name](environ, start)


def says(*parts: bytes, status: Any = OK, **headers: Any) -> Callable[[Environ, Start], Any]:
    """Make a function that answers with a list."""

    def answer(_: Environ, start: Start) -> list[bytes]:
        start(status, [(name.replace("_", "-"), value) for name, value in headers.items()])
        return list(parts)

    return answer


def yields(*parts: Any, status: str = OK, **headers: str) -> Callable[[Environ, Start], Any]:
    """Make a function that answers with a generator; an exception among the parts is raised."""

    def generate() -> Iterator[Any]:
        for part in parts:
            if isinstance(part, BaseException):
                raise type(part)(*part.args)
            yield part
        events.append("exhausted")

    def answer(_: Environ, start: Start) -> Watched:
        start(status, [(name.replace("_", "-"), value) for name, value in headers.items()])
        return Watched(generate())

    return answer


# --- Answers ------------------------------------------------------------------------------------

one = says(b"one")
sized = says(b"sized", Content_Length="5", Content_Type="text/plain")
many = says(b"a", b"", b"b" * 70000, b"c")
nothing = says()
nothing_sized = says(Content_Length="0")
generated = yields(b"a", b"", b"b", b"c")
generated_sized = yields(b"ab", b"c", Content_Length="3")
generated_nothing = yields()
large = yields(*[MEBI] * 4)
created = says(b"x", status="201 Created", Location="/there")
moved = says(status="301 Moved Permanently", Location="/there")
missing = says(b"no", status="404 Not Found")
unusual = says(b"x", status="599 Strange")
no_reason = says(b"x", status="200")
no_content = yields(status="204 No Content")
no_content_body = yields(b"x", status="204 No Content", Content_Length="1")
unchanged = yields(status="304 Not Modified", ETag='"1"')
unchanged_sized = yields(status="304 Not Modified", ETag='"1"', Content_Length="7")
unchanged_body = yields(b"x", status="304 Not Modified")
spaces = says(b"x", X_Padded=" \tpadded\t ", X_Empty="")
latin = says(b"x", X_Name="M\xfcller")
hops = says(b"x", Connection="close", Keep_Alive="timeout=5", TE="trailers", Upgrade="h2c")
chunked_by_hand = says(b"x", Transfer_Encoding="chunked")
of_server = says(b"x", Date="yesterday", Server="mine")
long_list = says(b"0123456789", Content_Length="4")
long_generated = yields(b"01234", b"56789", Content_Length="7")
long_by_far = yields(*[b"0123456789"] * 40, Content_Length="5")
newline_by_far = yields(*[b"0123456789"] * 40, X_Bad="a\n")
long_for_nothing = says(b"x", Content_Length="0")
short_list = says(b"0123", Content_Length="10")
short_generated = yields(b"0123", Content_Length="10")
short_nothing = says(Content_Length="10", X_Sendfile="/file")
newline = says(b"x", X_Bad="a\r\nSet-Cookie: b")
newline_in_name = says(b"x", **{"X\n": "b"})
name_with_space = says(b"x", **{"X Y": "b"})
unprintable = says(b"x", X_Bad="\u20ac")
number_as_value = says(b"x", X_Number=5)
length_of_words = says(b"x", Content_Length="one")
status_as_number = says(b"x", status=200)
status_of_words = says(b"x", status="OK")
words = yields("words")
words_later = yields(b"bytes", "words")
fails_before_first = yields(ValueError("early"))
fails_after_nothing = yields(b"", ValueError("early"))
fails_after_first = yields(b"first", ValueError("late"))
fails_after_first_sized = yields(b"first", ValueError("late"), Content_Length="10")
fails_after_all = yields(b"all", ValueError("late"), Content_Length="3")


def cookies(_: Environ, start: Start) -> list[bytes]:
    start(OK, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), *TEXT])
    return [b"x"]


def tuple_of_two(_: Environ, start: Start) -> tuple[bytes, ...]:
    start(OK, TEXT)
    return (b"a", b"b")


def late_start(_: Environ, start: Start) -> Iterator[bytes]:
    start(OK, TEXT)
    yield b"late"


def bad_close(_: Environ, start: Start) -> Watched:
    start(OK, [("Content-Length", "1")])
    return Watched([b"x"], fails=True)


def fails_and_bad_close(_: Environ, start: Start) -> Watched:
    start(OK, TEXT)
    return Watched((1 / 0 for _ in [0]), fails=True)


def fails_at_once(*_: Any) -> None:
    raise ValueError("at once")


def fails_after_start(_: Environ, start: Start) -> None:
    start(OK, TEXT)
    raise ValueError("after the start")


def never_starts(*_: Any) -> list[bytes]:
    return [b"x"]


def starts_twice(_: Environ, start: Start) -> list[bytes]:
    start(OK, TEXT)
    start("202 Accepted", TEXT)
    return [b"x"]


def gives_none(_: Environ, start: Start) -> None:
    start(OK, TEXT)


def stops(*_: Any) -> None:
    raise StopIteration


def leaves(*_: Any) -> None:
    sys.exit(1)


def written(_: Environ, start: Start) -> list[bytes]:
    write = start(OK, TEXT)
    write(b"a")
    write(b"")
    write(b"b")
    return []


def written_then_listed(_: Environ, start: Start) -> Watched:
    start(OK, [("Content-Length", "4")])(b"ab")
    return Watched([b"c", b"d"])


def written_large(_: Environ, start: Start) -> list[bytes]:
    write = start(OK, TEXT)
    for _ in range(3):
        write(MEBI)
    return []


def written_too_long(_: Environ, start: Start) -> list[bytes]:
    write = start(OK, [("Content-Length", "3")])
    write(b"ab")
    write(b"cdef")
    return [b"g"]


def written_words(_: Environ, start: Start) -> list[bytes]:
    start(OK, TEXT)("words")  # type: ignore[arg-type]
    return []


def fails_after_write(_: Environ, start: Start) -> None:
    start(OK, TEXT)(b"a")
    raise ValueError("after write")


def starts_again(environ: Environ, start: Start) -> Any:
    """Something went wrong: change the answer, if it is not on its way."""
    write = start(OK, TEXT)
    if environ["QUERY_STRING"]:
        write(b"on its way")
    try:
        environ["not.there"]
    except LookupError:
        start("503 Service Unavailable", [("Retry-After", "5")], sys.exc_info())
    return [b"instead"]


def generator_starts_again(environ: Environ, start: Start) -> Iterator[bytes]:
    start(OK, TEXT)
    try:
        yield b""
        environ["not.there"]
    except LookupError:
        start("500 Oops", [("X-Error", "1")], sys.exc_info())
        yield b"instead"


def file(environ: Environ, start: Start) -> Any:
    """Send this file; the query is its offset, or its length with a minus."""
    number = int(environ["QUERY_STRING"] or 0)
    start(OK, [("Content-Length", str(-number))] if number < 0 else TEXT)
    opened = Path(__file__).open("rb")  # noqa: SIM115 - the server closes it
    opened.seek(max(0, number))
    return environ["wsgi.file_wrapper"](opened, 1000)


def file_in_memory(environ: Environ, start: Start) -> Any:
    start(OK, TEXT)
    return environ["wsgi.file_wrapper"](io.BytesIO(MEBI[:5000]))


def endless(environ: Environ, start: Start) -> Watched:
    """Stream until somebody stops it; the query is the pause in milliseconds."""

    def numbers() -> Iterator[bytes]:
        try:
            while True:
                yield b"0123456789" * 100
                time.sleep(int(environ["QUERY_STRING"]) / 1000)
        finally:
            events.append("stopped")

    start(OK, TEXT)
    return Watched(numbers())


def endless_write(_: Environ, start: Start) -> list[bytes]:
    write = start(OK, TEXT)
    try:
        while True:
            write(MEBI)
    except OSError:
        events.append("told")
        raise


# --- Requests -----------------------------------------------------------------------------------


def environment(environ: Environ, start: Start) -> list[bytes]:
    """Say all that is in environ and the same for every server, or named in the query."""
    start(OK, TEXT)
    of_server = ("SERVER_PORT", "SERVER_SOFTWARE", "REMOTE_PORT", "RAW_URI", "gunicorn.", "wsgi.e")
    known = {
        key: value if isinstance(value, (str, bool, int, tuple)) else None
        for key, value in environ.items()
        if not key.startswith((*of_server, "wsgi.input", "wsgi.file", "wsgi.multi"))
    }
    known["REMOTE_PORT is a number"] = environ.get("REMOTE_PORT", "0").isdigit()
    return [json.dumps(known, sort_keys=True).encode()]


def body(environ: Environ, start: Start) -> list[bytes]:
    """Read in the way that the query says, and give it back."""
    stream = environ["wsgi.input"]
    ways: dict[str, Callable[[], Any]] = {
        "all": stream.read,
        "sized": lambda: stream.read(int(environ["CONTENT_LENGTH"])),
        "pieces": lambda: list(iter(lambda: stream.read(7), b"")),
        "lines": lambda: list(iter(stream.readline, b"")),
        "short_lines": lambda: list(iter(lambda: stream.readline(3), b"")),
        "all_lines": stream.readlines,
        "iterated": lambda: list(stream),
        "beyond": lambda: [stream.read(100000), stream.read(5), stream.read(), stream.readline()],
        "some": lambda: stream.read(3),
        "none": lambda: b"",
    }
    try:
        found = ways[environ["QUERY_STRING"]]()
    except OSError:
        events.append("told in the read")
        raise
    start(OK, TEXT)
    joined = (
        "|".join(part.decode("latin-1") for part in ([found] if found is str else found))
        if isinstance(found, list)
        else found.decode("latin-1")
    )
    return [joined.encode("latin-1")]


def size(environ: Environ, start: Start) -> list[bytes]:
    """Take a large body in pieces, and say how long it is."""
    total = sum(len(piece) for piece in iter(lambda: environ["wsgi.input"].read(100000), b""))
    start(OK, TEXT)
    return [str(total).encode()]


def terminated(environ: Environ, start: Start) -> list[bytes]:
    """Read as Werkzeug does: without a length there is a body only if the server says so."""
    may = environ.get("CONTENT_LENGTH") or environ.get("wsgi.input_terminated")
    start(OK, TEXT)
    return [environ["wsgi.input"].read() if may else b"nothing"]


def echo(environ: Environ, start: Start) -> Watched:
    """Answer while the request still comes."""
    start(OK, TEXT)
    return Watched(iter(lambda: environ["wsgi.input"].read(1000), b""))


def complains(environ: Environ, start: Start) -> list[bytes]:
    environ["wsgi.errors"].write("complaint\n")
    environ["wsgi.errors"].flush()
    start(OK, TEXT)
    return [b"x"]


@validator
def valid(environ: Environ, start: Start) -> list[bytes]:
    """Do what the validator of PEP 3333 watches."""
    stream = environ["wsgi.input"]
    found = stream.readline() + stream.read(3) + b"".join(stream.readlines(1)) + stream.read(100000)
    start(OK, [("Content-Type", "text/plain"), ("Content-Length", str(len(found)))])
    return [found]


@validator
def valid_write(_: Environ, start: Start) -> list[bytes]:
    start(OK, TEXT)(b"written")
    return [b"listed"]


# --- Threads ------------------------------------------------------------------------------------


def hangs(*_: Any) -> None:
    print("hanging", flush=True)
    time.sleep(600)


def notes(environ: Environ, start: Start) -> list[bytes]:
    """Note the query; /events tells all of them."""
    events.append(environ["QUERY_STRING"])
    start(OK, TEXT)
    return [b""]


def context(environ: Environ, start: Start) -> list[bytes]:
    """Say who the user was before this request, who is the one of the query."""
    before = user.get()
    user.set(environ["QUERY_STRING"])
    start(OK, TEXT)
    return [before.encode()]
