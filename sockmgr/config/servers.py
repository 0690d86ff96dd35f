"""The table of servers that sockmgr knows: names, options, signals and exit statuses of each.

launch/presets makes a command fit for a worker by this table, launch/own_config finds in flags and
config files what is the manager's to do, and init writes the command for a project. Each fact was
seen with the program itself or read in its source; docs/servers.md has the same table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

HUP, INT, QUIT, TERM = 1, 2, 3, 15  # signal(7)


class Work(StrEnum):
    """What the clients of a program speak."""

    HTTP = "HTTP"
    FASTCGI = "FastCGI"
    JOBS = "jobs"  # the program has no clients, but takes its work from a queue
    ANY = "anything"  # its source says what it does


class Duty(StrEnum):
    """What an option does that is the manager's: the harm in a worker, and what to do."""

    PIDFILE = (
        "each worker and each new generation want it, and who finds it taken ends; leave it out"
    )
    DAEMON = "it leaves the foreground, which looks as if it had ended; leave it out"
    COUNT = (
        "it runs so many processes in each worker of ours; leave it out, and set the key workers"
    )
    BIND = (
        "it has no effect beside the listeners that are handed over, or opens others; leave it out"
    )
    PORT = (
        "a new worker cannot open it while the old one has it, so each reload aborts; leave it "
        "out, or let the kernel choose the port"
    )
    RELOAD = "it restarts by itself and closes connections; leave it out, sockmgr reloads"
    REUSE = "it binds sockets of its own and loses what waits there when it ends; leave it out"
    STOP = ""  # the preset overrides it, or has more to say of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One program. Its options are those of its command line.

    `called` is a pattern for the names of the program, if it has more than `name`, and `call` one
    for its first argument, if only some subcommands serve. `names_fd` are the words that name one
    listener, with {} for its descriptor. With `takes_listen_fds` it finds its listeners by
    LISTEN_FDS, with `own_variable` by that variable of its own, and `in_source` is what the source
    of a program of this kind has to say instead. The options `binding` say where it listens by
    itself, `counting` how many processes it has, `patience` how long it may take to end. The
    options `own` do what the manager does; one that ends with = has a value. `settings` are those
    of its config file. `keep_alive` is what says how long it keeps idle connections, and the
    default in seconds. It loses its requests when it is told to stop by a signal of `abrupt`, and
    with the options `recycling` it ends by itself, before a successor is there. With `answers_all`
    one that leaves a queue that others share answers whom it has just accepted as well.

    `loses` is what is lost when it is told to stop. `refused` is why it cannot serve on a listener
    of ours, `instead` what to do, and `framework` what the applications that it serves are made of.
    """

    name: str
    called: str = ""
    call: str = ""
    work: Work = Work.HTTP
    names_fd: tuple[str, ...] = ()
    takes_listen_fds: bool = False
    own_variable: str = ""
    in_source: str = ""
    binding: tuple[str, ...] = ()
    counting: tuple[str, ...] = ()
    patience: tuple[str, ...] = ()
    own: Mapping[str, Duty] = field(default_factory=dict)
    settings: Mapping[str, Duty] = field(default_factory=dict)
    keep_alive: tuple[str, float] | None = None
    stop_signal: int = TERM
    abrupt: frozenset[int] = frozenset()
    recycling: tuple[str, ...] = ()
    answers_all: bool = False
    clean_exits: frozenset[int] = frozenset({0})
    broken_exits: frozenset[int] = frozenset()
    loses: str = ""
    refused: str = ""
    instead: str = ""
    framework: str = ""

    @property
    def takes_socket(self) -> bool:
        """Whether it can serve on a socket that it did not open itself."""
        return bool(self.names_fd or self.own_variable) or self.takes_listen_fds


_ALL = (
    Server(
        name="uvicorn",
        names_fd=("--fd", "{}"),
        binding=("--host", "--port", "--uds", "--fd"),
        counting=("--workers",),
        patience=("--timeout-graceful-shutdown",),
        keep_alive=("--timeout-keep-alive", 5.0),
        own={"--reload": Duty.RELOAD},
        abrupt=frozenset({HUP, QUIT}),
        recycling=("--limit-max-requests",),
        # It drains, then kills itself by the signal that it got: capture_signals in its server.py.
        clean_exits=frozenset({0, -TERM, -INT}),
        broken_exits=frozenset({1, 3}),
    ),
    Server(
        name="gunicorn",
        names_fd=("--bind", "fd://{}"),
        takes_listen_fds=True,
        binding=("-b", "--bind"),
        counting=("-w", "--workers"),
        patience=("--graceful-timeout",),
        keep_alive=("--keep-alive", 2.0),
        own={
            "--reload": Duty.RELOAD, "--reuse-port": Duty.REUSE, "-D": Duty.DAEMON,
            "--daemon": Duty.DAEMON, "-p=": Duty.PIDFILE, "--pid=": Duty.PIDFILE,
        },
        settings={
            "pidfile": Duty.PIDFILE, "daemon": Duty.DAEMON, "workers": Duty.COUNT,
            "bind": Duty.BIND, "reload": Duty.RELOAD, "reuse_port": Duty.REUSE,
        },
        abrupt=frozenset({INT, QUIT}),
        recycling=("--max-requests",),
        answers_all=True,
        broken_exits=frozenset({3, 4}),
    ),
    Server(
        name="uwsgi",
        called="(?:py)?uwsgi",
        names_fd=("--http-socket", "fd://{}"),
        takes_listen_fds=True,
        binding=("--http", "--http-socket", "--socket", "-s", "--http11-socket"),
        counting=("-p", "--processes", "--workers"),
        patience=("--worker-reload-mercy", "--reload-mercy"),
        own={
            "--die-on-term": Duty.STOP, "--reuse-port": Duty.STOP, "--daemonize=": Duty.DAEMON,
            "--pidfile=": Duty.PIDFILE, "--stats=": Duty.PORT,
        },
        settings={
            **dict.fromkeys(("pidfile", "pidfile2"), Duty.PIDFILE),
            **dict.fromkeys(("daemonize", "daemonize2"), Duty.DAEMON),
            **dict.fromkeys(("processes", "workers"), Duty.COUNT),
            **dict.fromkeys(("socket", "http", "http-socket"), Duty.BIND),
            "stats": Duty.PORT, "py-autoreload": Duty.RELOAD,
        },
        recycling=("--max-requests", "--max-worker-lifetime", "--reload-on-rss", "--reload-on-as"),
        answers_all=True,
        clean_exits=frozenset({0, 30}),  # 30: without --master
        broken_exits=frozenset({1, 22}),
    ),
    Server(
        name="hypercorn",
        names_fd=("--bind", "fd://{}"),
        binding=("-b", "--bind", "--insecure-bind"),
        counting=("-w", "--workers"),
        patience=("--graceful-timeout",),
        keep_alive=("--keep-alive", 5.0),
        own={"--reload": Duty.RELOAD, "-p=": Duty.PIDFILE, "--pid=": Duty.PIDFILE},
        recycling=("--max-requests",),
        broken_exits=frozenset({1}),
    ),
    Server(
        name="granian",
        names_fd=("--fd", "{}"),  # an option of programs/launch_granian
        binding=("--host", "--port", "--uds"),
        counting=("--workers",),
        patience=("--workers-kill-timeout",),
        own={"--reload": Duty.RELOAD, "--pid-file=": Duty.PIDFILE},
        recycling=("--workers-lifetime", "--workers-max-rss"),
        broken_exits=frozenset({1}),
    ),
    Server(
        name="daphne",
        names_fd=("--fd", "{}"),
        binding=("-b", "--bind", "-p", "--port", "-u", "--unix-socket", "--fd"),
        broken_exits=frozenset({1}),
        loses="each connection, with the request in hand",
        instead="serve the application by `app`, or by another server",
    ),
    Server(
        name="puma",
        takes_listen_fds=True,
        binding=("-b", "--bind", "-p", "--port"),
        counting=("-w", "--workers"),
        own={"--pidfile=": Duty.PIDFILE},
        broken_exits=frozenset({1}),
    ),
    Server(
        name="unicorn",
        called="unicorn(?:_rails)?",
        takes_listen_fds=True,
        binding=("-l", "--listen", "-o", "--host", "-p", "--port"),
        own={"-D": Duty.DAEMON, "--daemonize": Duty.DAEMON},
        stop_signal=QUIT,
        abrupt=frozenset({TERM, INT}),
        broken_exits=frozenset({1}),
    ),
    Server(
        name="nginx",
        stop_signal=QUIT,
        abrupt=frozenset({TERM, INT}),
        own_variable="NGINX",
    ),
    Server(
        name="php-fpm",
        called=r"php-fpm[0-9.]*",
        work=Work.FASTCGI,
        stop_signal=QUIT,
        abrupt=frozenset({TERM, INT}),
        own_variable="FPM_SOCKETS",
        own={"-D": Duty.DAEMON, "--daemonize": Duty.DAEMON},
    ),
    Server(
        name="waitress",
        called="waitress(?:-serve)?",
        binding=("--listen", "--host", "--port", "--unix-socket"),
        stop_signal=INT,
        abrupt=frozenset({TERM}),
    ),
    Server(name="cheroot", binding=("--bind",)),
    Server(
        name="node",
        called="node(?:js)?",
        work=Work.ANY,
        in_source="server.listen({ fd: 3 })",
        keep_alive=("server.keepAliveTimeout", 5.0),
        loses="all requests in hand, unless its source has a handler of SIGTERM",
    ),
    Server(
        name="go",
        call="run",
        work=Work.ANY,
        in_source='net.FileListener(os.NewFile(3, "http"))',
        broken_exits=frozenset({2}),  # a panic, or a wrong flag: runtime/panic.go, flag/flag.go
        loses="all requests in hand, unless its source calls signal.Notify and server.Shutdown",
    ),
    Server(
        name="fastapi",
        call="run|dev",
        binding=("--host", "--port"),
        counting=("--workers",),
        own={"--reload": Duty.RELOAD},
        refused="opens its port itself: it starts uvicorn, and has no option for a descriptor",
        instead='name uvicorn: command = ["uvicorn", "MODULE:app"], or app = "MODULE:app"',
        framework="FastAPI",
    ),
    Server(
        name="foreman",
        called="foreman|honcho|forego|goreman|overmind|hivemind",
        work=Work.ANY,
        refused="starts all that a Procfile has as children, which get no listener",
        instead="`sockmgr init --from Procfile` makes a service of each of its lines",
    ),
    Server(
        name="runserver",
        called=r"manage\.py|django(?:-admin)?",
        call="runserver",
        refused="is Django's server for development: it opens its port itself, restarts when a "
        "file changes, and told to stop, closes each connection with the request in hand",
        instead='serve what it serves: app = "PROJECT.wsgi:application", or by Gunicorn. For '
        "development there is `sockmgr dev`",
        framework="Django",
    ),
    Server(
        name="celery",
        work=Work.JOBS,
        recycling=("--max-tasks-per-child", "--max-memory-per-child"),
    ),
    Server(name="rq", work=Work.JOBS),
    Server(name="dramatiq", work=Work.JOBS),
    Server(
        name="huey",
        called=r"huey_consumer(?:\.py)?|huey\.bin\.huey_consumer",
        work=Work.JOBS,
        stop_signal=INT,  # TERM interrupts the jobs that it runs
    ),
    Server(name="arq", work=Work.JOBS),
)  # fmt: skip
KNOWN = {server.name: server for server in _ALL}


def named(program: str, args: Sequence[str] = ()) -> Server | None:
    """Return the server that a program with this name is, called with `args`; None if unknown."""
    first = args[0] if args else ""
    for server in _ALL:
        if re.fullmatch(server.called or re.escape(server.name), program) and (
            not server.call or re.fullmatch(server.call, first)
        ):
            return server
    return None
