"""Applications of all kinds, by attribute path and by factory."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any

from edges import answer


class Asgi:
    """An ASGI application that is an object."""

    async def __call__(self, scope: dict[str, Any], _: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await answer(send, b"asgi")


class Wsgi:
    """A WSGI application that is an object, as Flask's are."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        body = environ["wsgi.input"].read() or f"wsgi {environ['PATH_INFO']}".encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


class Site:
    """Something that has applications."""

    asgi = Asgi()
    wsgi = Wsgi()


def create_app() -> Asgi:
    """Make an application."""
    return Asgi()


def wrapped(app: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate an application."""

    @functools.wraps(app)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return app(*args, **kwargs)

    return wrapper


@wrapped
def decorated(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application behind a decorator."""
    return Site.wsgi(environ, start_response)  # type: ignore[no-any-return]


def unclear(*args: Any) -> Any:
    """Could be anything."""
    return Site.wsgi(*args)


meeting = threading.Barrier(2, timeout=30)


def at_once(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer only when another request is being answered."""
    meeting.wait()
    start_response("200 OK", [("Content-Length", "3")])
    return [b"met"]


number = 7
