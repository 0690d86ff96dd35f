"""Composes the lines that show the result of a save. Pure: screen.py writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sockmgr.api.types import Status

SHOWN = 5
KEYS = "keys: r reload, s status, q quit"


def files(paths: Sequence[str], width: int) -> str:
    """Name the files of a save in at most `width` columns: some of them, and how many more."""
    if not paths:
        return ""
    for count in range(min(len(paths), SHOWN), 0, -1):
        text = f", {some(paths, count)}"
        if len(text) <= width:
            return text
    _, slash, name = paths[0].rpartition("/")
    text = f", …/{name}" if slash else f", {name}"
    text += f" +{len(paths) - 1}" if len(paths) > 1 else ""
    return text if len(text) <= width else f", {len(paths)} file{'s' * (len(paths) > 1)}"


def some(paths: Sequence[str], count: int = SHOWN) -> str:
    """Name the first `count` of these files, and how many more there are."""
    more = f" +{len(paths) - count}" if count < len(paths) else ""
    return f"{', '.join(paths[:count])}{more}"


def serving(
    service: str,
    number: int,
    addresses: Sequence[str],
    seconds: float,
    paths: Sequence[str],
    width: int,
) -> str:
    """Say where the first code that serves can be reached."""
    where = " and ".join(map(url, addresses))
    text = f"{service} {number} serves{' on ' if where else ''}{where} in {seconds:.2f} s"
    return text + files(paths, width - len(text))


def reloaded(
    service: str, before: int, after: int, seconds: float, paths: Sequence[str], width: int
) -> str:
    """Say which generation serves now, after how long, and because of which files."""
    text = f"{service} {before} → {after} in {seconds:.2f} s"
    return text + files(paths, width - len(text))


def failed(service: str, number: int, kept: str, paths: Sequence[str], width: int) -> str:
    """Say which generation failed, and what goes on."""
    text = f"{service} {number} failed: {kept}"
    return text + files(paths, width - len(text))


def status(told: Status) -> Iterator[str]:
    """Say what runs, a line each."""
    for name, listener in told.listeners.items():
        queue = f", {listener.queue} waiting" if listener.queue else ""
        yield f"{name}  {url(listener.address)}{queue}"
    for name, service in told.services.items():
        yield f"{name} {service.generation}  {service.state}"
        for worker in service.workers:
            place = f"{worker.generation}.{worker.slot}"
            size = f"{worker.rss / 2**20:.0f} MB"
            yield f"  {name}@{place}  {worker.state}, {size}, pid {worker.pid}"


def url(address: str) -> str:
    """Return what to open in a browser for a listener."""
    host = address.removeprefix("tcp://")
    if host == address:
        return address
    for anybody in ("0.0.0.0:", "[::]:"):
        if host.startswith(anybody):
            host = f"localhost:{host.removeprefix(anybody)}"
    return f"http://{host}"
