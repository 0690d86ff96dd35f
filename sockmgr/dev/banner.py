"""Composes the lines that show the result of a save, which screen.py writes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sockmgr.api.types import Status
from sockmgr.terminal.format import count

SHOWN = 5  # names of files
KEYS = "keys: r reload, s status, q quit"


def files(paths: Sequence[str], width: int) -> str:
    """Name the files of a save in at most `width` columns; count those that have no room."""
    if not paths:
        return ""
    for number in range(min(len(paths), SHOWN), 0, -1):
        text = f", {some(paths, number)}"
        if len(text) <= width:
            return text
    _, slash, name = paths[0].rpartition("/")
    text = f", …/{name}" if slash else f", {name}"
    text += f" +{len(paths) - 1}" if len(paths) > 1 else ""
    return text if len(text) <= width else f", {count(len(paths), 'file')}"


def some(paths: Sequence[str], number: int = SHOWN) -> str:
    """Name the first `number` of these files, and how many more there are."""
    more = f" +{len(paths) - number}" if number < len(paths) else ""
    return f"{', '.join(paths[:number])}{more}"


def serving(service: str, number: int, addresses: Sequence[str], seconds: float) -> str:
    where = " and ".join(map(url, addresses))
    return f"{service} {number} serves{' on ' if where else ''}{where} in {seconds:.2f} s"


def reloaded(service: str, before: int, after: int, seconds: float) -> str:
    return f"{service} {before} → {after} in {seconds:.2f} s"


def status(status: Status) -> Iterator[str]:
    """Yield a line for each listener, service and worker."""
    for name, listener in status.listeners.items():
        queue = f", {listener.queue} waiting" if listener.queue else ""
        yield f"{name}  {url(listener.address)}{queue}"
    for name, service in status.services.items():
        yield f"{name} {service.generation}  {service.state}"
        for worker in service.workers:
            size = f"{worker.rss / 2**20:.0f} MB"
            yield f"  {worker.name(name)}  {worker.state}, {size}, pid {worker.pid}"


def url(address: str) -> str:
    """Return the URL of a listener for a browser, or its address if it is no TCP listener."""
    host = address.removeprefix("tcp://")
    if host == address:
        return address
    for anybody in ("0.0.0.0:", "[::]:"):
        if host.startswith(anybody):
            host = f"localhost:{host.removeprefix(anybody)}"
    return f"http://{host}"
