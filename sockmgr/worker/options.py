"""What `python -m sockmgr.worker` is told on its command line, parsed once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One worker of `app =`. Durations are seconds; `fds` are the listening sockets."""

    app: str
    fds: tuple[int, ...] = ()
    interface: str = "auto"
    drain_timeout: float = 30.0
    keep_alive: float = 5.0
    http: str = "auto"
    http2: bool = False
    ws: str = "auto"
    loop: str = "auto"
    threads: int = 10
    certfile: str = ""
    keyfile: str = ""
    keyfile_password_file: str = ""
    ca_certs: str = ""
    client_certs: str = "none"
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    proxy_protocol: bool = False
    header_timeout: float = 20.0
    log_level: str = "info"
    access_log: bool = True
    template: int | None = None  # be one, for workers that have so many descriptors


HTTP = ("auto", "httptools", "h11", "zttp")  # as uvicorn names them
WS = ("auto", "none", "websockets-sansio", "wsproto")
LOOPS = ("auto", "asyncio", "uvloop")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
CLIENT_CERTS = ("none", "optional", "required")
FORWARDED_ALLOW_IPS = "FORWARDED_ALLOW_IPS"  # of uvicorn and Gunicorn
INTERFACES = ("auto", "asgi", "wsgi")


def parse(argv: Sequence[str]) -> Options:
    """Return the options in `argv`; exits with 2 and a usage line if they are wrong."""
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
    add("--http", choices=HTTP, default=default.http)
    add("--http2", action="store_true", help="speak HTTP/2, too, by zttp")
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
        help="import only, and make workers, with so many descriptors, as a manager at fd 3 asks",
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
    # One that is empty stands for none at all.
    found["trusted_proxies"] = tuple(filter(None, map(str.strip, proxies)))
    return Options(**found)
