"""The keys of a config that go with `app =`, for our own runtime (sockmgr/worker)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from sockmgr.config import shape
from sockmgr.config.document import Value
from sockmgr.config.shape import BOOLEAN, TIMEOUT, Key, Shape, integer
from sockmgr.worker.http_options import CLIENT_CERTS, LOG_LEVELS, LOOPS, PROTOCOLS, HttpOptions

TEXT = Shape(Value.text, shape.TEXT)
INTERFACES = ("asgi", "wsgi")
OF_HTTP2 = ("auto", "zttp")
WEBSOCKETS = ("auto", "none", "websockets", "wsproto")
OF_CERTFILE = ("keyfile", "keyfile_password_file", "ca_certs", "client_certs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Http(HttpOptions):
    """The table [service.NAME.http]: how the runtime speaks HTTP."""

    migrate: bool = True
    protocol: str = "auto"
    websockets: str = "auto"
    trusted_proxies: tuple[str, ...] | None = None


def _proxies(value: Value) -> tuple[str, ...]:
    """Read addresses and networks, and refuse other texts, which uvicorn would silently ignore."""
    for item in value.items("an array of texts"):
        try:
            item.text() == "*" or ipaddress.ip_network(item.text())
        except ValueError:
            networks = 'networks such as "10.0.0.0/8", without host bits'
            raise item.wrong(f'addresses such as "10.0.0.5", {networks}, or "*"') from None
    return value.texts()


def _http(value: Value) -> Http:
    keys = value.entries()
    http = Http(**shape.fields(HTTP, value))
    if http.http2 and http.protocol not in OF_HTTP2:
        raise keys["http2"].refused(
            f'has no meaning beside protocol = "{http.protocol}", which speaks HTTP/1.1 only',
            do='set protocol = "zttp", or remove that',
        )
    _check_tls(http, keys)
    if http.proxy_protocol and http.trusted_proxies == ():
        raise keys["proxy_protocol"].refused(
            "believes nobody, for trusted_proxies is empty",
            do="name the proxy there, or remove proxy_protocol",
        )
    return http


def _check_tls(http: Http, keys: dict[str, Value]) -> None:
    """Refuse a key of TLS that has no meaning without another one."""
    for key in OF_CERTFILE:
        if getattr(http, key) not in ("", "none") and not http.certfile:
            raise keys[key].refused("has no meaning without certfile", do="set that, or remove it")
    if (http.client_certs == "none") == bool(http.ca_certs):
        known, other = (
            ("ca_certs", "client_certs") if http.ca_certs else ("client_certs", "ca_certs")
        )
        raise keys[known].refused(
            f"has no meaning without {other}",
            do='set ca_certs, who signs the certificates of clients, and client_certs = "required" '
            'or "optional", or remove both',
        )


_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
APP = shape.text(
    '"module:attribute", for example "shop.main:app", or "shop.main:create_app()"',
    rf"{_NAME}:{_NAME}(?:\(\))?",
)
_IPV4 = r"[0-9]+(?:\.[0-9]+){3}(?:/[0-9.]+)?"
_IPV6 = r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[^%/]+)?(?:/[0-9]+)?"
PROXIES = Shape(
    _proxies,
    {"type": "array", "items": {"type": "string", "pattern": rf"^(?:\*|{_IPV4}|{_IPV6})$"}},
)
INTERFACE = shape.one_of(INTERFACES)
HTTP = {
    "keep_alive": Key(
        TIMEOUT,
        "An idle connection is closed after this time, in a drain as on any day. Above the "
        "proxy's own limit, or the proxy loses requests.",
        "5s",
    ),
    "header_timeout": Key(
        TIMEOUT,
        "A connection on which the head of a request is not complete after this time is closed.",
        "20s",
    ),
    "migrate": Key(
        BOOLEAN,
        "A worker that ends gives the connections that it keeps to those that serve on; HTTP/1.1 "
        "without TLS. If not, it closes them.",
        True,
    ),
    "protocol": Key(
        shape.one_of(PROTOCOLS),
        "What parses HTTP: httptools if it is installed, else h11; zttp for HTTP/2.",
        "auto",
    ),
    "http2": Key(
        BOOLEAN,
        "Speak HTTP/2, too: by ALPN with TLS, else to clients that begin with it.",
        False,
    ),
    "websockets": Key(
        shape.one_of(WEBSOCKETS), "What speaks WebSocket: what is installed.", "auto"
    ),
    "loop": Key(shape.one_of(LOOPS), "The event loop: uvloop if it is installed.", "auto"),
    "threads": Key(integer(1, 1000), "For WSGI: how many requests run at a time.", 10),
    "certfile": Key(TEXT, "Speak TLS with this certificate chain; a reload reads it again.", ""),
    "keyfile": Key(TEXT, "The key of the certificate, if it is not in the same file.", ""),
    "keyfile_password_file": Key(TEXT, "A file whose first line is the password of the key.", ""),
    "ca_certs": Key(TEXT, "Who may have signed the certificates of clients, in PEM.", ""),
    "client_certs": Key(
        shape.one_of(CLIENT_CERTS),
        "Whether a client must, or may, show a certificate that ca_certs signed.",
        "none",
    ),
    "root_path": Key(
        shape.text("a path such as /shop, without / at its end", r"(?:/[^\x00/]+)*"),
        "The path that the proxy takes away before the application's own.",
        "",
    ),
    "trusted_proxies": Key(
        PROXIES,
        "Addresses and networks whose X-Forwarded-For and -Proto are believed; * for all, which a "
        "unix socket needs. Without it what FORWARDED_ALLOW_IPS says in the environment of the "
        "workers, or else this machine.",
    ),
    "proxy_protocol": Key(
        BOOLEAN,
        "Demand the header of the PROXY protocol, version 1 or 2, on each connection, and let only "
        "trusted_proxies connect.",
        False,
    ),
    "log_level": Key(shape.one_of(LOG_LEVELS), "What uvicorn's own log tells.", "info"),
    "access_log": Key(BOOLEAN, "Whether each request is a line of the log.", True),
}
HTTP_SHAPE = Shape(_http, shape.table(HTTP))
