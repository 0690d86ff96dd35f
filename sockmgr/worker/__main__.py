"""`python -m sockmgr.worker APP`: the runtime for `app =`. One process, one application."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sockmgr.worker import application, inherited, title
from sockmgr.worker.application import BROKEN, BrokenError
from sockmgr.worker.connections import Connections
from sockmgr.worker.figures import OwnFigures
from sockmgr.worker.intake import Intake, Source
from sockmgr.worker.moves import Moves
from sockmgr.worker.options import Options, parse

PACKAGES = {
    "httptools": "httptools",
    "zttp": "zttp",
    "websockets-sansio": "websockets",
    "wsproto": "wsproto",
    "uvloop": "uvloop",
}
PROBE_VARIABLE = "SOCKMGR_PROBE_FD"  # one more listener, which only the manager connects to
EXTRA = {"uvicorn": "'sockmgr[asgi]'", "zttp": "'sockmgr[http2]'"}
INSTALL = "pip install {package} into the environment of {python}"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a stop signal; return 0 after a drain, 3 for broken code. Bad usage exits."""
    options = parse(sys.argv[1:] if argv is None else argv)
    try:
        serve(options)
    except (BrokenError, ImportError) as error:
        sys.stderr.write(f"{application.tell(error)}\n")
        if options.template is not None:
            end(BROKEN)
        return BROKEN
    return 0


def serve(options: Options) -> None:
    """Configure uvicorn for the application, and serve; raise BrokenError.

    A template configures once, and only its copies serve.
    """
    title.show(options.app)
    template = None
    if options.template is not None:
        from sockmgr.worker.template import Template  # noqa: PLC0415 - most workers have none

        template = Template(options.app, options.template)
    serve_from = prepare(options)
    if template:
        template.wait()
        title.show(options.app)
    source = connections(options)
    listeners = source.listeners if isinstance(source, Intake) else ()
    serve_from(source, Moves.inherited(listeners))


def prepare(options: Options) -> Callable[[Source, Moves | None], None]:
    """Import the application and its server; return a function that serves, and owns, a source.

    And owns the move queue, if there is one.
    """
    require("uvicorn", "serves applications")
    for choice in (options.http, options.ws, options.loop):
        if choice in PACKAGES:
            require(PACKAGES[choice], "was asked for")
    from sockmgr.worker import server  # noqa: PLC0415 - needs uvicorn
    from sockmgr.worker.drain import Drain  # noqa: PLC0415 - beside it

    drain, figures = Drain(options.drain_timeout, options.keep_alive), OwnFigures()

    def make() -> Callable[..., Any]:
        return drain.wrap(figures.counted(as_asgi(load(options), options)))

    config = server.configure(options, make)
    if options.template is not None:
        server.warm_up(config, options.loop)

    def serve_from(source: Source, moves: Moves | None) -> None:
        figures.share()
        server.run(server.serve(config, drain, source, options, moves), options.loop)

    return serve_from


def connections(options: Options) -> Source:
    """Return the source of connections; raise BrokenError if there is none."""
    if passed := Connections.inherited():
        return passed
    listeners = [inherited.adopt(fd) for fd in options.fds] or inherited.listeners()
    if not listeners:
        raise BrokenError("there is no socket to serve on", "name one: --fd NUMBER, or LISTEN_FDS")
    if fd := os.environ.get(PROBE_VARIABLE):
        listeners.append(inherited.adopt(int(fd)))
    return Intake(listeners)


def load(options: Options) -> Callable[..., Any]:
    """Import the application, with the working directory first in sys.path."""
    where = os.getcwd()  # noqa: PTH109 - as sys.path has it
    if where not in sys.path:
        sys.path.insert(0, where)
    return application.load(options.app)


def as_asgi(app: Callable[..., Any], options: Options) -> Callable[..., Any]:
    """Return `app` as an ASGI application, wrapped if it is WSGI."""
    kind = options.interface
    if kind == "auto":
        kind = application.interface_of(app, options.app)
    if kind == "asgi":
        return app
    from sockmgr.worker.wsgi import Wsgi  # noqa: PLC0415 - only for WSGI

    return Wsgi(app, options.threads)


def end(status: int) -> NoReturn:
    """End at once: do not wait for threads of an import, nor run its functions for the exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, or closed
            stream.flush()
    os._exit(status)


def require(package: str, purpose: str) -> None:
    """Raise BrokenError if `package` is not installed."""
    try:
        __import__(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise BrokenError(
            f"{package}, which {purpose}, is not installed",
            INSTALL.format(package=EXTRA.get(package, package), python=sys.executable),
        ) from None


if __name__ == "__main__":
    sys.exit(main())
