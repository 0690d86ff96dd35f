"""uvicorn's Server with our sockets, our signals and our drain. All that we use of its insides.

The phases of a worker are apart, so that a template process can do the first two and fork:
configure(), which imports the application, then serve() in run().
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn

from sockmgr.worker import notify, peer, tls
from sockmgr.worker.application import BROKEN, BrokenError
from sockmgr.worker.connection import Http1, Tracked
from sockmgr.worker.cutting import cut
from sockmgr.worker.drain import Drain, dismiss, kept_back_by
from sockmgr.worker.figures import App
from sockmgr.worker.gate import Gate
from sockmgr.worker.heartbeat import watchdog
from sockmgr.worker.intake import Intake, Source
from sockmgr.worker.moved import MOVED, MessageError, Moved, decode
from sockmgr.worker.moves import Moves
from sockmgr.worker.options import Options
from sockmgr.worker.parting import Open
from sockmgr.worker.proxy_protocol import Proxied
from sockmgr.worker.tracking import tracked

log = logging.getLogger("uvicorn.error")

HANDSHAKE_TIMEOUT = 10.0
TICK = 0.1  # seconds, of uvicorn's
LOOK = 10  # ticks, a second, between looks at who is late
GOODBYE_TIMEOUT = 1.0  # for the peer's close_notify; asyncio's own 30 s would hold up the drain
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def configure(options: Options, make: Callable[[], App]) -> uvicorn.Config:
    """Return uvicorn's configuration, loaded, for the application that `make` imports.

    uvicorn sets up its log before that, so what the application says of loggers stands. Raises
    BrokenError, as `make` does.
    """
    config = uvicorn.Config(
        make,
        factory=True,
        interface="asgi3",
        http=options.http,
        **_of_zttp(options),
        ws=options.ws,
        timeout_keep_alive=options.keep_alive,  # type: ignore[arg-type]  # call_later takes it
        **tls.arguments(options),
        root_path=options.root_path,
        proxy_headers=bool(options.trusted_proxies),
        forwarded_allow_ips=[peer.plain(proxy) for proxy in options.trusted_proxies],
        log_level=options.log_level,
        access_log=options.access_log,
        workers=1,  # or WEB_CONCURRENCY would say
    )
    config.load()
    config.loaded_app = peer.told(config.loaded_app)
    return config


def _of_zttp(options: Options) -> dict[str, Any]:
    """Return what asks for HTTP/2; raises BrokenError if this uvicorn knows nothing of it."""
    knows_http2 = "http2" in inspect.signature(uvicorn.Config).parameters
    knows_zttp = "zttp" in getattr(uvicorn.config, "HTTP_PROTOCOLS", ())
    if (options.http2 and not knows_http2) or (options.http == "zttp" and not knows_zttp):
        raise BrokenError(
            f"uvicorn {uvicorn.__version__} does not speak {'HTTP/2' if knows_zttp else 'by zttp'}",
            f"pip install 'sockmgr[http2]' into the environment of {sys.executable}",
        )
    return {"http2": True} if options.http2 else {}


def misfit(config: uvicorn.Config) -> str:
    """Return what the drain needs and this uvicorn does not have; nothing if all is there.

    None of it is promised by uvicorn: seen from 0.36 to 0.54.
    """
    state = getattr(uvicorn.Server(config), "server_state", None)
    needed = {"config", "server_state", "app_state", "_loop"}
    methods = ("capture_signals", "startup", "main_loop", "on_tick", "shutdown", "handle_exit")
    checks = {
        f"Server.{name}": callable(getattr(uvicorn.Server, name, None)) for name in methods
    } | {
        "ServerState.connections": isinstance(getattr(state, "connections", None), set),
        "ServerState.tasks": isinstance(getattr(state, "tasks", None), set),
        "a known HTTP protocol": tracked(config.http_protocol_class) is not None,
        "shutdown of protocols": all(
            hasattr(protocol, "shutdown")
            for protocol in (config.http_protocol_class, config.ws_protocol_class)
            if protocol
        ),
        "the arguments of protocols": needed
        <= inspect.signature(config.http_protocol_class).parameters.keys(),
    }
    return ", ".join(name for name, there in checks.items() if not there)


class Server(uvicorn.Server):
    """Serves what comes from `source`, which it owns, until it is told to stop and has drained.

    And what other workers give away by `moves`, which it owns too; None if they give nothing.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        source: Source,
        options: Options,
        moves: Moves | None = None,
    ) -> None:
        super().__init__(config)
        self._drain, self._source, self._options = drain, source, options
        self._moves = drain.moves = moves
        self._gate = Gate(options.trusted_proxies) if options.proxy_protocol else None
        self._protocol = tracked(config.http_protocol_class) or config.http_protocol_class
        self._taking: set[asyncio.Task[Any]] = set()
        self._serving: asyncio.Task[Any] | None = None
        self._is_told = False  # by a stop signal
        self._kept_back = Counter[str]()  # connections that could not move, by the reason

    def take(self, sock: socket.socket) -> None:
        """Serve the client at `sock`, an accepted connection, which is owned from now on."""
        self._begin(sock, _told_of(sock))

    def _begin(self, sock: socket.socket, moved: Moved | None) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._take(loop, sock, moved), name="take")
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _take(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, moved: Moved | None
    ) -> None:
        context, proxied = self.config.ssl, moved.proxied if moved else None
        try:
            if self._gate and not moved and not (proxied := await self._gate.admit(sock)):
                return
            await loop.connect_accepted_socket(
                lambda: self._connect(loop, proxied, moved),
                sock,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT if context else None,
                ssl_shutdown_timeout=GOODBYE_TIMEOUT if context else None,
            )
        except OSError as error:  # the client is gone already, or does not speak TLS
            log.debug("connection lost before it was served: %s", error)

    def _connect(
        self, loop: asyncio.AbstractEventLoop, proxied: Proxied | None, moved: Moved | None
    ) -> asyncio.Protocol:
        make: Callable[..., Tracked] = self._protocol  # type: ignore[assignment]  # see misfit()
        if moved and moved.requests:  # its client has chosen HTTP/1.1
            make = getattr(make, "kinds", (make,))[0]
        protocol = make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=loop,
        )
        protocol.connection.proxied, protocol.connection.moved = proxied, moved
        protocol.connection.rested = self._move_soon if self._moves else None
        return protocol

    def _move_soon(self, connection: Http1) -> None:
        """Give away a connection whose answer is out, before the next request is read."""
        if self._drain.began_at is not None:
            # uvloop writes at the end of this turn, and reads in the next after what we call then.
            asyncio.get_running_loop().call_soon(self._drain.move, connection)

    def _move_all(self) -> None:
        """Give away what can be now, but for what the queue has no room for."""
        for connection in self._open():
            self._drain.move(connection)

    # --- Called by uvicorn, in this order ------------------------------------------------------

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals by the loop; uvicorn's own way raises them again at the end."""
        loop = asyncio.get_running_loop()
        self._serving = asyncio.current_task()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_stop_signal, number)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application up, then accept, and only then say so."""
        await super().startup(sockets=sockets or [])
        if self.should_exit:  # the start-up failed: older versions leave the status to their caller
            sys.exit(BROKEN)
        self._source.start(self.take, self._stop)
        if self._moves:
            self._moves.on_room(self._move_all)
            self._moves.start(self._begin)
        _say_ready()

    async def on_tick(self, counter: int) -> bool:
        """Go on with the drain, ten times a second; True when it is over."""
        over = await super().on_tick(counter)
        if counter % LOOK == 0:
            self._give_up_the_late()
        if self._drain.began_at is None:
            return over
        try:
            # What was passed to us before the signal may still wait in the channel.
            pending = len(self._taking) + (not self._source.ended)
            return self._drain.step(self._open(), pending)
        except Exception:  # a worker that can neither serve nor leave must not be left behind
            log.exception("the drain failed: open connections are closed now")
            return True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Cut off what is left, then shut the application down, before the manager kills."""
        self._stop()  # also when it leaves by itself
        for connection in self._open():
            dismiss(connection)
        await self._finish()
        for connection in self._open():
            connection.transport.abort()  # its client reads too slowly, or not at all
        if self._moves:
            self._tell_moves(self._moves)
            self._moves.close()
        self.config.timeout_graceful_shutdown = 0.05  # type: ignore[assignment]  # for no one
        try:
            async with asyncio.timeout(self._drain.left() - self._drain.last / 10):
                await self._shut_down_application()
        except TimeoutError:
            log.error("the application did not shut down in time, and is left as it is")

    # Private

    async def _finish(self) -> None:
        """Wait for tasks that work on after their answers; cut off, at the deadline, what is left.

        So the application shuts down when nothing uses it any more.
        """
        tasks = self.server_state.tasks
        while tasks and (left := self._drain.left() - self._drain.last) > 0:
            await asyncio.wait(tasks, timeout=min(left, TICK))  # it may be hastened meanwhile
        last = self._drain.last
        if tasks:
            await cut(tuple(tasks), spread=last / 2, limit=last * 3 / 4)

    async def _shut_down_application(self) -> None:
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown()  # it sleeps for 0.1 s, and looks again after as long
        else:
            log.info("Shutting down")
            await self.lifespan.shutdown()

    def _tell_moves(self, moves: Moves) -> None:
        kinds = "".join(f", {number} {why}" for why, number in sorted(self._kept_back.items()))
        notify.send(f"{MOVED}={moves.given}")
        if moves.given or kinds:
            stayed = f"; these could not move: {kinds[2:]}" if kinds else ""
            log.info("connections given to other workers: %d%s", moves.given, stayed)

    def _give_up_the_late(self) -> None:
        """Close connections on which no request has come, or not to the end of its head."""
        for each in tuple(self.server_state.connections):
            if isinstance(each, Tracked) and each.connection.is_late(self._options.header_timeout):
                each.give_up()

    def _open(self) -> list[Open]:
        return list(self.server_state.connections)  # type: ignore[arg-type]  # all of them have it

    def _on_stop_signal(self, number: int) -> None:
        if self._is_told:
            self._drain.hasten()
        self._is_told = True
        self._stop(number)

    def _stop(self, number: int = signal.SIGTERM) -> None:
        # Libraries that want to know of the end put theirs in the place of uvicorn's handler, as
        # sse-starlette does to end its streams; but we leave only when we have drained.
        self.handle_exit(number, None)
        self.should_exit = False
        if not self.started and self._serving:
            self._serving.cancel()  # nothing has been accepted: nothing can be lost
            return
        if self._drain.began_at is None:
            self._drain.begin()
            self._source.stop()
            if self._moves:
                self._moves.stop()
            notify.stopping()
            self._kept_back.update(filter(None, map(kept_back_by, self._open())))
            self._move_all()


def _told_of(sock: socket.socket) -> Moved | None:
    told = getattr(sock, "moved", b"")
    try:
        return decode(told) if told else None
    except MessageError as error:  # it is as good as new
        log.warning("what another worker told of a connection is not used: %s", error)
        return None


def _say_ready() -> None:
    notify.ready()
    _beat(asyncio.get_running_loop())


def _beat(loop: asyncio.AbstractEventLoop) -> None:
    if pause := watchdog():
        loop.call_later(pause, _beat, loop)


async def serve(
    config: uvicorn.Config, drain: Drain, source: Source, options: Options, moves: Moves | None
) -> None:
    """Serve until told to stop, with our drain if this uvicorn allows it, else with its own.

    Raises BrokenError if this uvicorn cannot take connections that somebody else accepted, or that
    begin with a header of the PROXY protocol.
    """
    missing = misfit(config)
    if not missing:
        await Server(config, drain, source, options, moves).serve()
    elif isinstance(source, Intake) and not options.proxy_protocol:
        log.warning(
            "uvicorn %s lacks %s: it drains in its own way, which loses requests on kept-alive "
            "connections; another version of it, or of sockmgr, is needed",
            uvicorn.__version__,
            missing,
        )
        if moves:
            moves.refuse()
        await _serve_stock(config, drain, source)
    else:
        raise BrokenError(
            f"uvicorn {uvicorn.__version__} lacks {missing}: it takes no connections that the "
            "manager accepted, or that begin with a PROXY header",
            'use another version of uvicorn, or of sockmgr, or accept = "shared" without '
            "proxy_protocol",
        )


async def _serve_stock(config: uvicorn.Config, drain: Drain, intake: Intake) -> None:
    config.timeout_graceful_shutdown = drain.left() - drain.last  # type: ignore[assignment]
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=intake.listeners), name="serve")
    while not (server.started or serving.done()):  # noqa: ASYNC110 - it tells in no other way
        await asyncio.sleep(0.02)
    if server.started:
        _say_ready()
    await serving


def run(main: Coroutine[Any, Any, None], loop: str) -> None:
    factory = _loop_factory(loop)
    with (
        contextlib.suppress(asyncio.CancelledError),
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        runner.run(main)


def warm_up(config: uvicorn.Config, loop: str) -> None:
    """Import what a worker imports until it serves, so that copies of this process need not.

    Leaves no event loop behind, and runs none of uvloop's: all copies would share its pipe for
    signals.
    """
    import faulthandler  # noqa: F401, PLC0415 - for a heartbeat

    misfit(config)
    _loop_factory(loop)
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(asyncio.sleep(0))


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name != "asyncio":
        try:
            import uvloop  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - optional
        except ImportError:
            if name == "uvloop":
                raise
        else:
            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
    return asyncio.SelectorEventLoop
