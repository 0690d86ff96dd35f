"""The command line of `python -m sockmgr.worker`, parsed once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

from sockmgr.worker.http_options import CLIENT_CERTS, LOG_LEVELS, LOOPS, PROTOCOLS, HttpOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(HttpOptions):
    """The options of one worker of `app =`. Durations are seconds; `fds` are listening sockets."""

    app: str
    fds: tuple[int, ...] = ()
    interface: str = "auto"
    drain_timeout: float = 30.0
    http: str = "auto"
    ws: str = "auto"
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    template: int | None = None  # run as a template; how many descriptors each worker gets


WS = ("auto", "none", "websockets-sansio", "wsproto")
FORWARDED_ALLOW_IPS = "FORWARDED_ALLOW_IPS"  # of uvicorn and Gunicorn
INTERFACES = ("auto", "asgi", "wsgi")


def parse(argv: Sequence[str]) -> Options:
    """Return the options in `argv`; exit with 2 and a usage line if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m sockmgr.worker", description="Serve one application, as one process."
    )
    add, default = parser.add_argument, Options(app="")
    add("app", help="module:attribute, or module:factory()")
    add("--fd", dest="fds", type=int, action="append", default=[],
        help="a listening socket; may be repeated (default: LISTEN_FDS)")  # fmt: skip
    add("--interface", choices=INTERFACES, default=default.interface)
    add("--drain-timeout", type=float, default=default.drain_timeout, metavar="SECONDS")
    add("--keep-alive", type=float, default=default.keep_alive, metavar="SECONDS")
    add("--http", choices=PROTOCOLS, default=default.http)
    add("--http2", action="store_true", help="also speak HTTP/2, by zttp")
    add("--ws", choices=WS, default=default.ws)
    add("--loop", choices=LOOPS, default=default.loop)
    add("--threads", type=int, default=default.threads, help="for WSGI")
    add("--certfile", default=default.certfile, help="speak TLS, with this certificate chain")
    add("--keyfile", default=default.keyfile, help="its key, if that is not in the same file")
    add("--keyfile-password-file", default="", help="a file with the password of the key")
    add("--ca-certs", default="", help="who may have signed the certificates of clients")
    add("--client-certs", choices=CLIENT_CERTS, default=default.client_certs)
    add("--root-path", default=default.root_path)
    add("--trusted-proxy", dest="trusted_proxies", action="append", metavar="ADDRESS",
        help="may be repeated (default: FORWARDED_ALLOW_IPS, or this machine)")  # fmt: skip
    add("--proxy-protocol", action="store_true", help="demand its header of trusted proxies")
    add("--header-timeout", type=float, default=default.header_timeout, metavar="SECONDS")
    add("--log-level", choices=LOG_LEVELS, default=default.log_level)
    add("--no-access-log", dest="access_log", action="store_false")
    add(
        "--template",
        type=int,
        metavar="NUMBER",
        help="import only, and make workers with this many descriptors for the manager at fd 3",
    )
    found = vars(parser.parse_args(argv))
    if found["http2"]:
        if found["http"] not in ("auto", "zttp"):
            parser.error(f"--http2 is spoken by zttp, and not by {found['http']}")
        found["http"] = "zttp"
    found["fds"] = tuple(found["fds"])
    proxies = found["trusted_proxies"]
    if proxies is None:
        proxies = os.environ.get(FORWARDED_ALLOW_IPS, ",".join(default.trusted_proxies)).split(",")
    # An empty text stands for no trusted proxy at all.
    found["trusted_proxies"] = tuple(filter(None, map(str.strip, proxies)))
    return Options(**found)
