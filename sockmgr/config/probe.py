"""Requests by which a worker proves itself, as frozen values: what is asked, and what is expected.

Durations are seconds.
"""

from __future__ import annotations

import msgspec


class TcpProbe(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Passed by a worker that accepts a connection within `timeout`.

    `listener` is a name; "" is the first one that takes connections. The next try comes `every` so
    many seconds after the end of the last one.
    """

    timeout: float = 2.0
    every: float = 0.2
    listener: str = ""

    def __str__(self) -> str:
        return "probe by TCP"


class HttpProbe(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Passed by a worker whose whole answer to GET `path` comes within `timeout`, as expected.

    `expect` are statuses ("200") and classes of statuses ("2xx"). `listener` and `every` are as in
    TcpProbe. The headers may hold secrets.
    """

    path: str
    expect: tuple[str, ...] = ("200",)
    timeout: float = 2.0
    every: float = 0.2
    headers: tuple[tuple[str, str], ...] = ()
    host: str = "localhost"
    listener: str = ""

    def expects(self, status: int) -> bool:
        return any(each in (str(status), f"{status // 100}xx") for each in self.expect)

    def __str__(self) -> str:
        return f"probe GET {self.path}"


Probe = HttpProbe | TcpProbe


def warm_up_like(ready: object) -> HttpProbe:
    """Return what a request for a warm-up is, but for its path: as that of `ready`, if it has one.

    An application that wants a host or a header of the probe wants it here as well.
    """
    return ready if isinstance(ready, HttpProbe) else HttpProbe(path="/")


class Healthy(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker that serves must go on passing: `failures` in a row, and it is replaced."""

    probe: Probe
    failures: int = 3

    def __str__(self) -> str:
        return f"{self.probe}, {self.failures} failures"
