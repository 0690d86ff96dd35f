"""Imports the user's application by its name, and tells ASGI from WSGI. Serves nothing."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

_OF_TYPES = ("typing", "types", "collections.abc")  # modules of aliases of types, also callable
BROKEN = 3  # exit status: this code cannot serve, and starting it again will not help


class BrokenError(Exception):
    """The application cannot be loaded: what is wrong, and what to do.

    Its `__cause__` is the error of the user's code, if there is one.
    """

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what)
        self.what, self.do = what, do

    def __str__(self) -> str:
        return f"{self.what}\n  {self.do}"


def load(target: str) -> Callable[..., Any]:
    """Import `module:attribute.path`, or call `module:factory()`; raise BrokenError."""
    module, _, path = target.partition(":")
    called = path.endswith("()")
    path = path.removesuffix("()")
    if not module or not path:
        raise BrokenError(
            f"{target!r} does not name an application",
            'write "module:attribute", for example "shop.main:app", or "shop.main:create_app()"',
        )
    found = _attribute(_import(module), module, path)
    if called:
        found = _call(found, target)
    if not callable(found):
        raise BrokenError(
            f"{target} is {_a(found)}, which cannot be called, and so is no application",
            "name the ASGI or WSGI callable",
        )
    application: Callable[..., Any] = found
    return application


def interface_of(app: Callable[..., Any], target: str) -> str:
    """Return "asgi" or "wsgi", by the parameters of `app`; raise BrokenError if neither fits."""
    call = app if inspect.isroutine(app) else type(app).__call__
    if inspect.iscoroutinefunction(inspect.unwrap(call)):
        return "asgi"
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(app).parameters
    except (TypeError, ValueError):  # written in C
        parameters = {}  # type: ignore[assignment]
    needed = sum(p.kind in positional and p.default is p.empty for p in parameters.values())
    if needed in (2, 3):
        return {2: "wsgi", 3: "asgi"}[needed]
    hint = ""
    if needed == 0 and inspect.isfunction(app):
        hint = f'; if it makes the application, write "{target}()"'
    raise BrokenError(
        f"{target} does not show whether it is ASGI (scope, receive, send) or WSGI (environ, "
        "start_response)",
        f'set interface = "asgi" or interface = "wsgi"{hint}',
    )


def tell(error: BaseException) -> str:
    """Return what to print about a broken application, with only the user's part of a traceback."""
    cause = error.__cause__ if isinstance(error, BrokenError) else error
    if cause is None:
        return f"sockmgr.worker: {error}"
    lines = traceback.format_exception(type(cause), cause, _of_the_user(cause.__traceback__))
    return "".join(lines) + (f"sockmgr.worker: {error}" if isinstance(error, BrokenError) else "")


def _import(module: str) -> object:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # This is about `app` only if the missing module is the one named, or a package above it.
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise BrokenError(
                f"there is no module {error.name}",
                f"looked for in {Path.cwd()} and in {sys.prefix}: correct `app` or `cwd`, or "
                "install it there",
            ) from None
        raise BrokenError(
            f"cannot import {module}: {error}",
            f"the traceback above shows where; {sys.executable} looked for it: install it there, "
            "or name the application's own interpreter by the key python",
        ) from error
    except Exception as error:
        raise BrokenError(
            f"cannot import {module}: {_a(error)}", "the traceback above shows where"
        ) from error


def _attribute(found: object, module: str, path: str) -> Any:
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            known = ", ".join(_callables(found)) or "none"
            raise BrokenError(
                f"{module} has no attribute {path}", f"callables there: {known}"
            ) from None
    return found


def _call(factory: Any, target: str) -> object:
    try:
        return factory()
    except Exception as error:
        raise BrokenError(
            f"{target} failed: {_a(error)}", "the traceback above shows where"
        ) from error


def _callables(found: object) -> Iterator[str]:
    """Yield the names of what could be meant: callables, but no classes or imported functions."""
    home = getattr(found, "__name__", "")
    for name, value in vars(found).items() if hasattr(found, "__dict__") else ():
        if not callable(value) or name.startswith("_") or inspect.isclass(value):
            continue
        if inspect.isroutine(value):
            if value.__module__ == home:
                yield name
        elif type(value).__module__ not in _OF_TYPES:
            yield name


def _a(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _of_the_user(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins with the user's own code."""
    ours = (str(Path(__file__)), importlib.__file__, "<frozen importlib")
    while trace and trace.tb_frame.f_code.co_filename.startswith(ours):
        trace = trace.tb_next
    return trace
