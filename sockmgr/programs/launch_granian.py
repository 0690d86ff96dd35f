"""Run granian on an inherited listening socket: `launch_granian.py --fd N` and granian's arguments.

granian has no option for an inherited socket (emmett-framework/granian#786), so this module
overrides the one place where granian binds its own. Told to stop, granian drops its WebSockets, so
each is closed by a frame first.
It runs by path in granian's own interpreter, where sockmgr need not be installed, so it imports
nothing of sockmgr.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from importlib import import_module
from typing import Any

RESTARTS = {"type": "websocket.close", "code": 1012}  # "service restart", of IANA's registry


def take_fd(arguments: list[str]) -> int:
    """Take `--fd N` or `--fd=N` out of `arguments` and return N."""
    for index, text in enumerate(arguments):
        option, equals, number = text.partition("=")
        if option == "--fd":
            end = index + (1 if equals else 2)
            number = number if equals else "".join(arguments[index + 1 : end])
            if number.isascii() and number.isdecimal():
                del arguments[index:end]
                return int(number)
            break
    sys.exit("launch_granian: it needs --fd and the number of an inherited listening socket")


def end_websockets() -> None:
    """Have workers of granian that serve ASGI close each WebSocket before they stop."""
    workers: Any = import_module("granian.server.mp")
    signals: Any = import_module("granian._signals")
    wrap = getattr(workers, "_asgi_call_wrap", None)
    watch = getattr(signals, "set_loop_signals", None)
    if wrap is None or watch is None:
        return  # a version that lacks one of these stops as it would without us
    senders = set[Any]()

    def remember(application: Any, *about: Any) -> Any:
        async def speak(scope: Any, receive: Any, send: Any) -> None:
            senders.add(send)
            try:
                await application(scope, receive, send)
            finally:
                senders.discard(send)

        def ask(scope: Any, *ends: Any) -> Any:
            return (speak if scope["type"] == "websocket" else application)(scope, *ends)

        return wrap(ask, *about)

    def close_first(loop: Any) -> Any:
        stopping = watch(loop)

        async def close() -> None:
            await asyncio.gather(*(send(RESTARTS) for send in senders), return_exceptions=True)
            stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: loop.create_task(close()))
        return stopping

    workers._asgi_call_wrap, signals.set_loop_signals = remember, close_first


def serve(fd: int) -> None:
    """Run granian's command line with the socket `fd` in place of one that it would bind."""
    try:  # not at the top, as children that multiprocessing spawns import this module as well
        holder = import_module("granian._granian").SocketHolder
        server_class = import_module("granian.server.common").AbstractServer
        entrypoint = import_module("granian.cli").entrypoint
        known = hasattr(server_class, "_init_shared_socket")
    except (ImportError, AttributeError) as error:
        sys.exit(f"launch_granian: {sys.executable} has no granian 2.8 or later: {error}")
    if not known:
        sys.exit("launch_granian: this granian opens its sockets in another way than 2.8 does")
    with socket.socket(fileno=fd) as listener:
        unix = listener.family == socket.AF_UNIX
        where = listener.getsockname()
        listener.detach()

    def inherit(server: Any) -> None:
        server.bind_uds = None  # granian would delete this path at its end, and it is ours
        # granian calls listen(2) with its own --backlog; the manager restores that of the config.
        server._ssp, server._shd, server._sfd = None, holder(fd, unix, server.backlog), fd

    name = f"unix:{where}" if unix else "{}:{}".format(*where[:2])
    server_class._bind_addr_fmt = property(lambda _: name)
    server_class._init_shared_socket = inherit
    end_websockets()
    entrypoint()


if __name__ == "__mp_main__":  # a worker, where multiprocessing spawns them
    end_websockets()
if __name__ == "__main__":
    # Without -I, -P and PYTHONSAFEPATH, sys.path begins with the directory of this file, from which
    # an application must not import.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]
    inherited = take_fd(sys.argv)
    sys.argv[0] = "granian"
    serve(inherited)
