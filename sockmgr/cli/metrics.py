"""`sockmgr metrics`: prints the metrics of a manager for Prometheus, or serves them over HTTP."""

from __future__ import annotations

import contextlib
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import click

from sockmgr.cli import target
from sockmgr.client.connection import NoManagerError

if TYPE_CHECKING:
    import socket

    from prometheus_client import CollectorRegistry

SCRAPE_TIMEOUT = 3.0  # seconds; Prometheus itself gives up after 10 by default


@click.command("metrics")
@click.option("--listen", metavar="ADDRESS", help="Serve them over HTTP at HOST:PORT.")
@click.option("--workers", is_flag=True, help="Add what each worker uses: more series.")
@click.option("--application", is_flag=True, help="Add what workers count themselves.")
@target.options
def command(where: target.Target, listen: str | None, workers: bool, application: bool) -> None:
    """Print metrics for Prometheus, or serve them.

    Prints them once, in the text format, for the textfile collector of node_exporter; or serves
    them over HTTP until TERM, with --listen (HOST:PORT or unix:///PATH) or a socket from systemd.
    Each scrape asks the manager, and waits 3 s or --timeout for its answer. While no manager
    answers, sockmgr_up is 0; without --listen the exit code is then 3.
    """
    if where.as_json:
        raise click.UsageError("metrics are a format of their own; status has --json")
    from prometheus_client import generate_latest

    from sockmgr.metrics import server
    from sockmgr.metrics.collector import StatusCollector

    sock = server.passed()
    if sock and listen:
        raise click.UsageError("systemd has passed a socket: leave out --listen")
    if listen:
        sock = server.listening_at(listen)
    where = replace(where, timeout=where.timeout or SCRAPE_TIMEOUT)
    # Without a socket, what it has to say is raised afterwards.
    say = target.narrate if sock else lambda _: None
    collector = StatusCollector(where.find, processes=workers, say=say)
    registry = collector.registry()
    if application:
        from sockmgr.metrics.application import ApplicationCollector

        registry.register(ApplicationCollector(where.find, target.narrate))
    if sock:
        with contextlib.suppress(NoManagerError):  # one may start later; another error will not go
            where.client()
        _serve(registry, sock)
    click.echo(generate_latest(registry), nl=False)
    if collector.trouble:
        raise collector.trouble


def _serve(registry: CollectorRegistry, sock: socket.socket) -> NoReturn:
    from prometheus_client import make_wsgi_app

    from sockmgr.metrics import server

    # As PID 1 of a container, a process ignores each signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    target.narrate(f"metrics are at {server.url(sock)}")
    server.MetricsServer(sock, make_wsgi_app(registry)).serve()
