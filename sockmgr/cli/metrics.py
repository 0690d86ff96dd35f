"""`sockmgr metrics`: what Prometheus wants to know, once or at each scrape."""

from __future__ import annotations

import contextlib
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import click

from sockmgr.cli import target
from sockmgr.client.client import NoManagerError

if TYPE_CHECKING:
    import socket

    from sockmgr.metrics.collector import StatusCollector

SCRAPE_TIMEOUT = 3.0  # seconds; Prometheus itself gives up after 10, if not told otherwise


@click.command("metrics")
@click.option("--listen", metavar="ADDRESS", help="Serve them over HTTP at HOST:PORT.")
@click.option("--workers", is_flag=True, help="Also what each worker uses; more series.")
@target.options
def command(where: target.Target, listen: str | None, workers: bool) -> None:
    """Print metrics for Prometheus, or serve them.

    Once, in the text format, for the textfile collector of node_exporter; or over HTTP, until TERM,
    with --listen (HOST:PORT or unix:///PATH) or with a socket from systemd. The manager is asked at
    each scrape, for 3 s or --timeout, and never in between. While none answers sockmgr_up is 0;
    without --listen the exit code is 3 then.
    """
    if where.as_json:
        raise click.UsageError("metrics are a format of their own; status has --json")
    from sockmgr.metrics import server
    from sockmgr.metrics.collector import StatusCollector

    sock = server.passed()
    if sock and listen:
        raise click.UsageError("systemd has passed a socket: leave out --listen")
    if listen:
        sock = server.listening_at(listen)
    where = replace(where, timeout=where.timeout or SCRAPE_TIMEOUT)
    collector = StatusCollector(
        where.find, processes=workers, say=target.narrate if sock else _nothing
    )
    if sock:
        with contextlib.suppress(NoManagerError):  # what else is wrong is wrong at each scrape
            where.client()
        _serve(collector, sock)
    _print(collector)


def _serve(collector: StatusCollector, sock: socket.socket) -> NoReturn:
    from prometheus_client import make_wsgi_app

    from sockmgr.metrics import server

    # PID 1 of a container ignores what it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    target.narrate(f"metrics are at {server.url(sock)}")
    server.MetricsServer(sock, make_wsgi_app(collector.registry())).serve()


def _print(collector: StatusCollector) -> None:
    from prometheus_client import generate_latest

    click.echo(generate_latest(collector.registry()), nl=False)
    if collector.trouble:
        raise collector.trouble


def _nothing(said: str) -> None:
    """Say nothing: the error that follows tells it."""
    del said
