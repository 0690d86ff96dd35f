"""The keys of a config that are about probes: of `ready`, of `healthy`, and paths to warm up by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sockmgr.config import placeholder, shape
from sockmgr.config.document import Value
from sockmgr.config.probe import Healthy, HttpProbe, Probe, TcpProbe, warm_up_like
from sockmgr.config.shape import TIMEOUT, Key, Shape, integer
from sockmgr.config.spec import Accept, Listen

if TYPE_CHECKING:
    from sockmgr.config.config import ServiceConfig

HEALTHY_EVERY = (
    5.0  # seconds: by default a worker that serves is asked much less than one that boots
)
_STATUS = r"[1-5](?:[0-9][0-9]|xx)"
_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
_OWN_HEADERS = {"host": "give host instead"} | dict.fromkeys(
    ("connection", "content-length", "transfer-encoding"), "remove it: a probe sends its own"
)

# --- Readers -----------------------------------------------------------------------------------


def _tcp(value: Value) -> bool:
    if value.raw is not True:
        raise value.wrong("true")
    return True


def _expect(value: Value) -> tuple[str, ...]:
    allowed = 'a status such as 200, a class such as "2xx", or an array of these'
    items = value.items(allowed) if isinstance(value.raw, list) else [value]
    if not items:
        raise value.wrong(allowed)
    return tuple(_status(item, allowed) for item in items)


def _status(value: Value, allowed: str) -> str:
    if isinstance(value.raw, str):
        return value.text(allowed, _STATUS)
    return str(value.integer(100, 599, allowed))


def _headers(value: Value) -> tuple[tuple[str, str], ...]:
    pairs = []
    for name, entry in replace(value, secret=True).entries().items():
        plain = Value(value.source, entry.path, name)
        plain.text("names of headers, such as X-Probe", _HEADER_NAME)
        if do := _OWN_HEADERS.get(name.lower()):
            raise entry.refused("is set by the probe itself", do=do)
        pairs.append((name, entry.text("a text without line breaks", r"[^\x00\r\n]*")))
    return tuple(pairs)


def probe(keys: Mapping[str, Value], **default: Any) -> Probe:
    """Return the probe that a table with `http` or `tcp` means; its values are in PROBE."""
    kind = HttpProbe if "http" in keys else TcpProbe
    known = {**OF_HTTP, **OF_BOTH} if kind is HttpProbe else OF_BOTH
    fields = {key: known[key].read(keys[key]) for key in known if key in keys}
    if kind is HttpProbe:
        fields["path"] = PROBE["http"].read(keys["http"])
    else:
        PROBE["tcp"].read(keys["tcp"])
    for key in OF_HTTP.keys() & keys.keys() if kind is TcpProbe else ():
        raise keys[key].refused("has no meaning beside tcp", do="remove it, or give http instead")
    return kind(**(default | fields))


def _healthy(value: Value) -> Healthy:
    allowed = '{ http = "/path" } or { tcp = true }, with more keys'
    if not isinstance(value.raw, dict):
        raise value.wrong(allowed)
    if "exec" in value.raw:
        raise value.entries()["exec"].refused("is for ready only", do="give http or tcp instead")
    keys = value.table(HEALTHY)
    if ("http" in keys) == ("tcp" in keys):
        raise value.wrong(allowed)
    failures = shape.read({"failures": HEALTHY["failures"]}, keys)
    return Healthy(probe=probe(keys, every=HEALTHY_EVERY), **failures)


# --- Tables ------------------------------------------------------------------------------------

PATH = shape.text("a path such as /healthz, as in a request: without spaces", r"/[!-~]*")
PATHS = shape.array_of(PATH, 'an array of paths, such as ["/", "/search?q=x"]')
_ONE_STATUS: dict[str, Any] = {
    "type": ["integer", "string"], "minimum": 100, "maximum": 599, "pattern": f"^{_STATUS}$",
}  # fmt: skip
OF_BOTH = {
    "timeout": Key(TIMEOUT, "By when the whole answer must be there.", "2s"),
    "every": Key(
        TIMEOUT, "The next try comes so long after the last one ended: 200 ms, healthy 5 s."
    ),
    "listener": Key(
        shape.text("the name of a listener", placeholder.NAME),
        "Which listener is probed: the first that takes connections, if not given.",
    ),
}
OF_HTTP = {
    "expect": Key(
        Shape(
            _expect,
            {"anyOf": [_ONE_STATUS, {"type": "array", "items": _ONE_STATUS, "minItems": 1}]},
        ),
        'The status that passes: a number, a class such as "2xx", or an array of these.',
        200,
    ),
    "headers": Key(
        Shape(
            _headers,
            {
                "type": "object",
                "propertyNames": {"pattern": f"^{_HEADER_NAME}$"},
                "additionalProperties": {"type": "string", "pattern": r"^[^\x00\r\n]*$"},
            },
        ),
        "More headers of the request, as texts.",
        {},
    ),
    "host": Key(
        shape.text("a host, with or without a port", r"[!-~]+"),
        "The Host of the request, for applications that answer to theirs only.",
        "localhost",
    ),
}
PROBE = {
    "http": Key(
        PATH, "Asked for by GET through the worker's own queue, which nobody else reaches."
    ),
    "tcp": Key(
        Shape(_tcp, {"enum": [True]}), "A connection to the worker's own queue is accepted."
    ),
    **OF_BOTH,
    **OF_HTTP,
}
HEALTHY = {
    **PROBE,
    "failures": Key(
        integer(1, 1000), "So many in a row, and the worker is replaced as one that hangs.", 3
    ),
}


def one_of(keys: Mapping[str, Key], kinds: Sequence[str]) -> dict[str, Any]:
    """Return the JSON Schema of a table that has exactly one of the keys `kinds`."""
    return {**shape.table(keys), "oneOf": [{"required": [kind]} for kind in kinds]}


HEALTHY_SHAPE = Shape(_healthy, one_of(HEALTHY, ("http", "tcp")))

# --- How they go together ------------------------------------------------------------------------


def check(table: Value, service: ServiceConfig, listens: Sequence[Listen]) -> None:
    """Refuse a probe that could reach nobody, or somebody else; `table` is that of the service."""
    keys = table.entries()
    mine = {each.name: each for each in listens if each.name in service.listen}
    if isinstance(service.ready, Probe):
        _check_probe(keys["ready"], service, mine, service.ready)
    if service.rollout.warmup:
        at = keys["rollout"].entries()["warmup"]
        _check_probe(at, service, mine, warm_up_like(service.ready))
    if service.healthy is None:
        return
    _check_probe(keys["healthy"], service, mine, service.healthy.probe)
    if service.accept is Accept.SHARED:
        raise keys["healthy"].refused(
            'has nobody to replace with accept = "shared": any worker may have answered',
            do='add accept = "per-worker", where each has a queue of its own',
        )


def _check_probe(
    at: Value, service: ServiceConfig, mine: Mapping[str, Listen], probe: Probe
) -> None:
    streams = [each for each in mine.values() if not each.address.traits.is_datagram]
    if probe.listener and probe.listener not in mine:
        named = at.entries().get("listener", at)
        raise named.wrong(f"a listener of this service ({', '.join(mine) or 'it has none'})")
    listen = mine[probe.listener] if probe.listener else streams[0] if streams else None
    if listen is None or listen not in streams:
        what = f"{listen.name} is of UDP" if listen else "the service has no listener for any"
        raise at.refused(
            f"has no connection to ask by: {what}", do='use { exec = ["COMMAND"] } as `ready`'
        )
    dispatched = service.accept is Accept.DISPATCH
    if isinstance(probe, TcpProbe):
        if dispatched:
            raise at.refused(
                "has no meaning where connections are passed: each worker says that it takes them",
                do='use ready = "accepting", or http',
            )
        if listen.address.traits.is_stream and not listen.address.traits.is_internet:
            raise at.refused("is not told of unix sockets by the kernel", do="use http")
        return
    unknown = ""
    if service.http.proxy_protocol:
        unknown = "comes from no proxy, and proxy_protocol lets nobody else in"
    elif service.http.client_certs == "required":
        unknown = "has no certificate to show, and client_certs requires one"
    if unknown:
        raise at.refused(unknown, do="use tcp = true, or remove it")
