"""The servers that sockmgr knows: what each is called, told, and does with signals. One table.

How a command is made fit for a worker is presets.py's, which runs nothing either; how one is
written for a project is project/servers.py's. Each fact was seen with the program itself or read in
its source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

INT, QUIT, TERM = 2, 3, 15  # signal(7)


class Work(StrEnum):
    """What a program's clients speak to it."""

    HTTP = "HTTP"
    FASTCGI = "FastCGI"
    JOBS = "jobs"  # it has no clients, but takes its work from a queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One program. Its options are those of its command line.

    `names_fd` are the words that name one listener, with {} for its descriptor; `takes_listen_fds`
    tells that it finds listeners by LISTEN_FDS, `told_by` by which variable of its own it does.
    `binding` say where it listens by itself, `counting` how many processes it has, `patience` how
    long it may take to end, and `own` what is the manager's: reloading, daemons, files that two
    instances would both want. The latter have a value if they end with =.
    """

    name: str
    called: str = ""
    work: Work = Work.HTTP
    names_fd: tuple[str, ...] = ()
    takes_listen_fds: bool = False
    told_by: str = ""
    binding: tuple[str, ...] = ()
    counting: tuple[str, ...] = ()
    patience: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    stop_signal: int = TERM
    clean_exits: frozenset[int] = frozenset({0})
    broken_exits: frozenset[int] = frozenset()

    @property
    def takes_socket(self) -> bool:
        """Whether it can serve on a socket that is not its own."""
        return bool(self.names_fd or self.told_by) or self.takes_listen_fds


_ALL = (
    Server(
        name="uvicorn",
        names_fd=("--fd", "{}"),
        binding=("--host", "--port", "--uds", "--fd"),
        counting=("--workers",),
        patience=("--timeout-graceful-shutdown",),
        own=("--reload",),
        # It drains, then kills itself by the signal it got (uvicorn/server.py, capture_signals).
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
        own=("--reload", "--reuse-port", "-D", "--daemon", "-p=", "--pid="),
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
        own=("--die-on-term", "--reuse-port", "--daemonize=", "--pidfile=", "--stats="),
        clean_exits=frozenset({0, 30}),  # 30: when it has no master
        broken_exits=frozenset({1, 22}),
    ),
    Server(
        name="hypercorn",
        names_fd=("--bind", "fd://{}"),
        binding=("-b", "--bind", "--insecure-bind"),
        counting=("-w", "--workers"),
        patience=("--graceful-timeout",),
        own=("--reload", "-p=", "--pid="),
        broken_exits=frozenset({1}),
    ),
    Server(
        name="granian",
        names_fd=("--fd", "{}"),  # of our launcher
        binding=("--host", "--port", "--uds"),
        counting=("--workers",),
        patience=("--workers-kill-timeout",),
        own=("--reload", "--pid-file="),
        broken_exits=frozenset({1}),
    ),
    Server(
        name="daphne",
        names_fd=("--fd", "{}"),
        binding=("-b", "--bind", "-p", "--port", "-u", "--unix-socket", "--fd"),
        broken_exits=frozenset({1}),
    ),
    Server(
        name="puma",
        takes_listen_fds=True,
        binding=("-b", "--bind", "-p", "--port"),
        counting=("-w", "--workers"),
        own=("--pidfile=",),
        broken_exits=frozenset({1}),
    ),
    Server(
        name="unicorn",
        called="unicorn(?:_rails)?",
        takes_listen_fds=True,
        binding=("-l", "--listen", "-o", "--host", "-p", "--port"),
        own=("-D", "--daemonize"),
        stop_signal=QUIT,  # TERM and INT end it with its requests
        broken_exits=frozenset({1}),
    ),
    Server(
        name="nginx",
        stop_signal=QUIT,  # TERM and INT close connections
        told_by="NGINX",
    ),
    Server(
        name="php-fpm",
        called=r"php-fpm[0-9.]*",
        work=Work.FASTCGI,
        stop_signal=QUIT,  # TERM and INT end it with its requests
        told_by="FPM_SOCKETS",
    ),
    Server(
        name="waitress",
        called="waitress(?:-serve)?",
        binding=("--listen", "--host", "--port", "--unix-socket"),
    ),
    Server(name="cheroot", binding=("--bind",)),
    Server(name="celery", work=Work.JOBS),
    Server(name="rq", work=Work.JOBS),
    Server(name="dramatiq", work=Work.JOBS),
    Server(
        name="huey",
        called=r"huey_consumer(?:\.py)?|huey\.bin\.huey_consumer",
        work=Work.JOBS,
        stop_signal=INT,  # TERM interrupts what it does
    ),
    Server(name="arq", work=Work.JOBS),
)
KNOWN = {server.name: server for server in _ALL}


def named(program: str) -> Server | None:
    """Return the server that a program of this name is, None for one that is not known."""
    for server in _ALL:
        if re.fullmatch(server.called or re.escape(server.name), program):
            return server
    return None
